"""Bytes to values and back: pure functions, no state, no clock. Every decoder is total."""
