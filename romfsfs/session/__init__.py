"""Sessions: what happens between a target's image and the user's edits.

keep         what is on disk: the folder and its locks, records, base, recall, history
tree         the work tree: scanning, filling, digests, putting files back, following a new base
plan         what a commit would write: shadow tree, plan, status
session      one session: its folder, base, conversions, status
rebase       the one transaction that gives a target another image or a session another base
opening      opening a session: lock, record, work tree; `revert` takes edits back or drops them
service      what the FUSE adapter calls; `mounting` opens it
find         which session DIR or SOURCE names; `connect` opens its device
build        an image from a folder, without a session; `build_many` for several boards
"""
