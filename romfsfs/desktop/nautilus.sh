#!/bin/sh
# Written by `romfsfs desktop --install`; removed by `romfsfs desktop --uninstall`.
folder=$(printf '%s' "$NAUTILUS_SCRIPT_SELECTED_FILE_PATHS" | head -n 1)
[ -n "$folder" ] || folder=$PWD
cd / && exec @PROGRAM@ desktop --run @ACTION@ "$folder"
