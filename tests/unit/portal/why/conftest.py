"""The portal of the REST API's tests."""

from tests.unit.portal.api.conftest import portal

__all__ = ["portal"]
