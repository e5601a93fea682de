"""Black-box conformance suite for STUN (RFC 8489) and TURN (RFC 8656) servers; `README.md` says how to run it."""
