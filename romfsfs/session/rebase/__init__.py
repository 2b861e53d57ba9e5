"""Giving a target another image: read, commit, push, undo, and recovery after a crash."""
