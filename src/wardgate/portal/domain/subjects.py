"""Who a request acts for."""

from dataclasses import dataclass
from typing import Final, Literal

from wardgate.ids import AccountId, ActorId, TokenId

ActorType = Literal["account_user", "account_admin_user", "service_account", "api_client"]
ACTOR_TYPES: Final = ("account_user", "account_admin_user", "service_account", "api_client")
USER_TYPES: Final = ("account_user", "account_admin_user")
SubjectKind = Literal["client", "gateway", "relay", "api", "web", "system"]


@dataclass(frozen=True, slots=True)
class Location:
    """Where an address is, as far as it is known."""

    region: str | None = None
    city: str | None = None
    lat: float | None = None
    lon: float | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks, in which account, and by which token; everything read or written is scoped by it.

    Attributes:
        kind: The door it came through; `system` is the portal itself.
        force_reason: Why a policy test may break by what is done; it is kept with the test, and so in the change log.
        actor_id: The person, service account or API client; gateways and the system have none.
    """

    account_id: AccountId
    kind: SubjectKind
    actor_id: ActorId | None = None
    actor_type: ActorType | None = None
    actor_name: str | None = None
    actor_email: str | None = None
    token_id: TokenId | None = None
    auth_provider_id: str | None = None
    remote_ip: str | None = None
    user_agent: str | None = None
    location: Location = Location()
    force_reason: str | None = None

    def for_log(self) -> dict[str, str | float | None]:
        """What the logs keep of it (portal-domain-3 B2)."""
        return {
            "actor_id": self.actor_id,
            "actor_name": self.actor_name,
            "actor_email": self.actor_email,
            "actor_type": self.actor_type,
            "auth_provider_id": self.auth_provider_id,
            **self.origin_for_log(),
        }

    def origin_for_log(self) -> dict[str, str | float | None]:
        """Where it came from, as the logs keep it."""
        return {
            "ip": self.remote_ip,
            "ip_region": self.location.region,
            "ip_city": self.location.city,
            "ip_lat": self.location.lat,
            "ip_lon": self.location.lon,
            "user_agent": self.user_agent,
        }


def system(account_id: AccountId) -> Subject:
    """The portal acting on its own."""
    return Subject(account_id, "system")
