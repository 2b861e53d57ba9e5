"""The only part that imports fuse: a session's work tree as a mounted directory."""
