"""The work tree: scanning and filling it, digests of its files, putting files back."""
