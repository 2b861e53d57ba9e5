"""Sessions: what happens between a target's image and the user's edits.

keep         what is on disk: the folder and its locks, records, base, recall, history
tree         the work tree: scanning, filling, digests, putting files back, following a new base
plan         what a commit would write: shadow tree, plan, status, diff
session      one session: its folder, base, conversions, status
rebase       the one transaction that gives a target another image or a session another base
opening      the way in: the lock, the record, the work tree; `revert` is the way out
service      the session's side of a mount
find         which session or device a name means
build        an image from a folder, without a session
"""
