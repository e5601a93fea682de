"""The requirements, one module for each part of the RFCs; importing this registers all of them."""

from conformance.requirements import (
    allocate,
    allocate_options,
    authentication,
    channel_data,
    channels,
    expiry,
    families,
    framing,
    indications,
    newer_algorithms,
    permissions,
    refresh,
    stun_attributes,
    stun_message,
)

__all__ = [
    "allocate",
    "allocate_options",
    "authentication",
    "channel_data",
    "channels",
    "expiry",
    "families",
    "framing",
    "indications",
    "newer_algorithms",
    "permissions",
    "refresh",
    "stun_attributes",
    "stun_message",
]
