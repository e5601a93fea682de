"""What is said on a socket once it stands: one channel for each client, gateway and relay."""
