"""Files that make other programs of the desktop know romfsfs: made by pure functions, put in place
and taken away by `installed`.

units            systemd's user unit and udev's rule that mount a camera when it is plugged in
file_managers    Commit and Status in the menus of Nautilus and Thunar
installed        what was written, so that just that can be removed again
"""
