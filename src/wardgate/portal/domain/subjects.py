"""Who a request acts for."""

from dataclasses import asdict, dataclass
from typing import Final, Literal

from wardgate.ids import AccountId, ActorId, TokenId

ActorType = Literal["account_user", "account_admin_user", "service_account", "api_client"]
ACTOR_TYPES: Final = ("account_user", "account_admin_user", "service_account", "api_client")
USER_TYPES: Final = ("account_user", "account_admin_user")
SubjectKind = Literal["client", "gateway", "relay", "api", "system"]


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
    force_reason: str | None = None

    def for_log(self) -> dict[str, str | None]:
        """What the change log keeps of it."""
        left_out = ("account_id", "force_reason")
        return {name: value for name, value in asdict(self).items() if value is not None and name not in left_out}


def system(account_id: AccountId) -> Subject:
    """The portal acting on its own."""
    return Subject(account_id, "system")
