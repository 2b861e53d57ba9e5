"""The operating system: files, clock, mount table, programs, and what its errors mean."""
