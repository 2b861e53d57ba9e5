"""ROMFS images: reading, laying out, writing and checking them.

Takes buffers and open files, opens nothing, and imports no other part of romfsfs. Facts of the
format: `varuint`; what is accepted: `reader`; how images are laid out: `layout` and `stable`.
"""
