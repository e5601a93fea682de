"""Wardgate: zero-trust access to private applications and subnets, resource by resource."""

__version__ = "0.1.0"
