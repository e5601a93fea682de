"""The relay: STUN and TURN."""
