"""The address ranges that the wire protocol fixes."""

from ipaddress import IPv4Network, IPv6Network
from typing import Final

IpNetwork = IPv4Network | IPv6Network

TUNNEL_V4: Final = IPv4Network("100.64.0.0/11")
TUNNEL_V6: Final = IPv6Network("fd00:2021:1111::/107")
"""Clients and gateways; the portal gives each one address of either family."""
PROXY_V4: Final = IPv4Network("100.96.0.0/11")
PROXY_V6: Final = IPv6Network("fd00:2021:1111:8000::/107")
"""Stand-ins for names, given by each client; the sentinels inside are not among them."""
SENTINEL_V4: Final = IPv4Network("100.100.111.0/24")
SENTINEL_V6: Final = IPv6Network("fd00:2021:1111:8000:100:100:111:0/120")
"""The client's own resolver."""
