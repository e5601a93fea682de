"""The portal's rules, on plain values: pure functions without database, sockets or clock."""
