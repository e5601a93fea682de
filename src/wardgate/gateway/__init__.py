"""The gateway: the end in front of the resources."""
