"""Identifiers: one type each, all lower-case dashed UUID text unless said otherwise."""

from typing import NewType

AccountId = NewType("AccountId", str)
ActorId = NewType("ActorId", str)
AuthorizationId = NewType("AuthorizationId", str)
ClientId = NewType("ClientId", str)
DeviceId = NewType("DeviceId", str)
GatewayId = NewType("GatewayId", str)
GroupId = NewType("GroupId", str)
MembershipId = NewType("MembershipId", str)
PolicyId = NewType("PolicyId", str)
RelayId = NewType("RelayId", str)
ResourceId = NewType("ResourceId", str)
SiteId = NewType("SiteId", str)
TokenId = NewType("TokenId", str)

PeerIndex = NewType("PeerIndex", int)
"""A peer in the native tables: a number from 0 that the process gives out and never uses twice."""

FlowId = NewType("FlowId", int)
"""A flow in the native tables."""
