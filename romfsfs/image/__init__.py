"""ROMFS images: reading, laying out, writing and checking them.

Takes buffers and open files, opens nothing, and imports only `errors` and `system` of romfsfs. The
format: `varuint`; what is accepted: `reader`; how images are laid out: `layout` and `stable`.
"""
