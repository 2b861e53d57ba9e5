"""See `spsdk`."""
