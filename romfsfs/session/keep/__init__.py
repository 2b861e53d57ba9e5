"""What a session keeps on disk: its folder and locks, records, base, recall, history."""
