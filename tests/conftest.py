"""Settings of all tests."""

from hypothesis import settings

settings.register_profile("wardgate", deadline=None)
settings.load_profile("wardgate")
"""A machine busy with other work must not fail a property by its clock; pytest's own timeout stays."""
