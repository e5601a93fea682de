"""The REST door: one file a noun, one envelope, one error shape (RFC 9457)."""
