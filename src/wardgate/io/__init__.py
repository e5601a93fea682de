"""The only sockets, clocks and randomness."""
