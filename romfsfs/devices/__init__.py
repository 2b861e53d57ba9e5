"""Where images are read from and written to: image files, cameras over serial, DFU, RT1060.

Bytes only: nothing here knows trees, plans or sessions (`base.py` has the interface, `open.py`
the grammar of SOURCE). Importing this package imports nothing heavy, pyserial least of all.
"""
