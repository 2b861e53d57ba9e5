"""Files that make other programs of the desktop know romfsfs: the files lie here, with
`@NAME@` where a path comes in; `installed` fills them in, puts them in place and takes them away.

units            systemd's user unit and udev's rule that mount a camera when it is plugged in
file_managers    Commit and Status in the menus of Nautilus and Thunar, image files that open
programs         what of the desktop romfsfs starts
notify           failed conversions, and edits that a mount leaves
installed        what was written, so that just that can be removed again
"""
