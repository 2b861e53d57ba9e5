"""The work tree: scanning, filling, digests, putting files back, following a new base."""
