"""Cameras in their boot loader, whole images only.

loader    `BootLoader`: read, write, erase, reset
dfu       one by dfu-util (STM32 boards, AE3, Arduino); dfu_util: its command lines and listing
blhost    one by NXP's blhost (RT1060)
device    a `Device` over either; all that decides about an image is there
programs  finding and running dfu-util and blhost
"""
