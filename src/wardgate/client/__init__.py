"""The client: the initiator of access."""
