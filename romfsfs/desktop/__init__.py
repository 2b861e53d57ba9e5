"""Desktop integration: files that are installed for other programs, and programs that are started.

The files are templates beside these modules, with `@NAME@` where a value is filled in.

units            systemd user units and the udev rule that mount a camera when it is plugged in
file_managers    Commit and Status in the menus of Nautilus and Thunar, opening image files
programs         desktop programs that romfsfs starts
notify           notifications: failed conversions, edits that a mount leaves, failed mounts
installed        fills in and installs files, and records them, to remove exactly those again
"""
