"""Sessions: what happens between a target's image and the user's edits.

keep         what is on disk: the folder and its locks, records, base image, recall, history
tree         the work tree: scanning it, filling it, digests of its files, putting files back
plan         what a commit would write: shadow tree, plan, status, diff
rebase       giving a target another image: reading, commit, push, undo, recovery
session      one session: its folder, base, target, status
opening      a work tree from kept edits or from the target; entry takes the lock first
service      the session's side of a mount
find         sessions of cameras, without opening the camera's port
build        an image from a folder, without a session
"""
