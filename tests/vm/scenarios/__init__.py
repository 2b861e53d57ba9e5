"""What users do with cameras on USB, and what goes wrong there: each function is a scenario.

They run in the virtual machine of `scripts/vm`, with the kernel's own drivers and dfu-util.
"""
