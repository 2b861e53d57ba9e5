"""Cameras on a serial port: MicroPython's raw REPL and `vfs.rom_ioctl`.

port.py        pyserial with deadlines            repl.py        the raw REPL
snippets.py    what runs on the camera            probe.py       what the camera says it is
identity.py    board, partition, names            flash_plan.py  which blocks to write, in order
frames.py      frames of the write loop           trying.py      opening a model on the camera
reading.py, writing.py   the transfer loops       questions.py   what a partition holds
camera.py      SerialCamera, the device
"""
