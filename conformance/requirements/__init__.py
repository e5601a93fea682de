"""The requirements, one module for each part of the RFCs; importing this registers all of them."""

from conformance.requirements import stun_message

__all__ = ["stun_message"]
