"""Sessions: what happens between a target's image and the user's edits.

session      one session: its folder, base, target, status
store        where sessions live, and their locks
state        the two JSON files; base_image keeps `base.json` and `base.img` together
entry        the way in for who keeps a session: the lock first
opening      a work tree from kept edits or the target (reading); recall brings sources back
worktree     scanning a tree; extraction fills one; digests, shadow: what each file becomes
plan         what a commit would write; status and diff show it
prepare, encoding, commit, recovery, target    the commit, from edits to verified bytes
history, undo, revert, restore                 going back
host         the session's side of a mount; conversions runs what is pending
build        a directory to an image and back, without a session
steps        where a crash may strike
"""
