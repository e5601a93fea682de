"""The requirements, one module for each part of the RFCs; importing this registers all of them."""

from conformance.requirements import authentication, framing, newer_algorithms, stun_attributes, stun_message

__all__ = ["authentication", "framing", "newer_algorithms", "stun_attributes", "stun_message"]
