"""What a client was granted and believes in: kept so that each grant is renewed in time, or its end is told."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from wardgate.ids import ResourceId
from wardgate.portal.domain.hours import PAST_THE_END

RENEW_AHEAD: Final = timedelta(seconds=30)
"""How long before its end a grant is renewed: the receiver hears of it in time, and of little else."""


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """One grant that the client has.

    Attributes:
        device_id: The device of a pool that it reaches; `None` for a resource behind gateways, of which one serves it.
        is_final: Whether renewing it was tried in vain.
    """

    authorization_id: str
    resource_id: ResourceId
    device_id: str | None
    expires_at: datetime
    is_final: bool = False

    @property
    def due_at(self) -> datetime:
        """When something has to be done about it."""
        return self.expires_at + PAST_THE_END if self.is_final else self.expires_at - RENEW_AHEAD


class HeldGrants:
    """The grants of one client, the newest for each resource, or for each device of a pool."""

    def __init__(self) -> None:
        self._by_target: dict[tuple[ResourceId, str | None], HeldGrant] = {}

    def load(self, grants: Iterable[HeldGrant]) -> None:
        """Replaces everything; later ones take the place of earlier ones."""
        self._by_target = {(one.resource_id, one.device_id): one for one in grants}

    def add(self, grant: HeldGrant) -> None:
        """A new grant takes the place of an older one."""
        self._by_target[grant.resource_id, grant.device_id] = grant

    def extend(self, authorization_id: str, expires_at: datetime) -> bool:
        """A grant lasts until another moment; whether it is one of these."""
        for target, grant in self._by_target.items():
            if grant.authorization_id == authorization_id:
                self._by_target[target] = replace(grant, expires_at=expires_at, is_final=False)
                return True
        return False

    def end(self, authorization_id: str) -> bool:
        """A grant ended; whether the client still counted on it."""
        for target, grant in self._by_target.items():
            if grant.authorization_id == authorization_id:
                del self._by_target[target]
                return True
        return False

    def forget(self, resource_id: ResourceId) -> None:
        """The client was told that a resource is gone, and lets go of its grants."""
        for target in [target for target in self._by_target if target[0] == resource_id]:
            del self._by_target[target]

    def devices(self, resource_id: ResourceId) -> set[str | None]:
        """What is held of a resource: devices of a pool, or `None`."""
        return {device_id for resource, device_id in self._by_target if resource == resource_id}

    def is_due(self, at: datetime) -> bool:
        """Whether a grant should be renewed now."""
        return any(not one.is_final and one.due_at <= at for one in self._by_target.values())

    def tried(self, at: datetime) -> None:
        """Renewing was tried: what still ends soon will end."""
        for target, grant in self._by_target.items():
            if grant.due_at <= at:
                self._by_target[target] = replace(grant, is_final=True)

    def take_ended(self, at: datetime) -> set[ResourceId]:
        """Lets go of what is over, and gives its resources."""
        over = [target for target, grant in self._by_target.items() if grant.expires_at < at]
        for target in over:
            del self._by_target[target]
        return {resource_id for resource_id, _ in over}

    def next_due(self) -> datetime | None:
        """When something is due next."""
        return min((one.due_at for one in self._by_target.values()), default=None)
