"""Handles on devices that are connected to other portals: what is asked of them becomes messages to those portals."""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

from wardgate.ids import AccountId, ActorId, ClientId, GatewayId, SiteId, TokenId
from wardgate.portal.channels.handles import Answered, Grant
from wardgate.portal.cluster import messages
from wardgate.portal.cluster.messages import ClientRecord, DeviceRecord, GatewayRecord, Message
from wardgate.portal.db.scope import Scope
from wardgate.portal.db.sealing import unseal
from wardgate.portal.db.tables import Device
from wardgate.portal.domain.selection import OnlineGateway
from wardgate.wire import portal
from wardgate.wire.portal_secrets import PskParty

MAX_PENDING: Final = 10_000


class Sender(Protocol):
    """What handles need of the cluster."""

    @property
    def refs(self) -> "Refs":
        """Requests that wait for other portals."""

    @property
    def is_connected(self) -> bool:
        """Whether other portals can be reached."""

    def send(self, node_id: str, message: Message) -> bool:
        """Sends to one portal; false if that is not possible now."""


class Refs:
    """Requests that other portals have not answered; the oldest are forgotten when too many wait."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, tuple[str, Answered, Answered]] = OrderedDict()

    def new(self, node_id: str, acknowledged: Answered, refused: Answered) -> str:
        """A reference for one request to a portal."""
        ref = secrets.token_urlsafe(18)
        self._waiting[ref] = (node_id, acknowledged, refused)
        while len(self._waiting) > MAX_PENDING:
            self._waiting.popitem(last=False)
        return ref

    def answer(self, ref: str, is_taken: bool) -> bool:
        """Tells who asked; false if nobody waits for it."""
        waiting = self._waiting.pop(ref, None)
        if waiting is None:
            return False
        _, acknowledged, refused = waiting
        (acknowledged if is_taken else refused)(ref)
        return True

    def refuse_all(self, node_id: str) -> None:
        """A portal is gone: it will not answer."""
        for ref in [ref for ref, (of_node, _, _) in self._waiting.items() if of_node == node_id]:
            self.answer(ref, is_taken=False)


@dataclass(frozen=True, slots=True, eq=False)
class RemoteClient:
    """A client of another portal."""

    node_id: str
    record: ClientRecord
    sender: Sender

    @property
    def device_id(self) -> ClientId:
        """The device."""
        return self.record.id

    @property
    def account_id(self) -> AccountId:
        """Whose it is."""
        return self.record.account_id

    @property
    def actor_id(self) -> ActorId:
        """Who uses it."""
        return self.record.actor_id

    @property
    def token_id(self) -> TokenId:
        """What it joined with."""
        return self.record.token_id

    @property
    def device(self) -> DeviceRecord:
        """As it was when it connected."""
        return self.record.device

    @property
    def is_joined(self) -> bool:
        """Whether it takes messages: clients are announced when they have joined."""
        return self.sender.is_connected

    @property
    def has_iceless(self) -> bool:
        """Whether it can do without ICE."""
        return self.record.has_iceless

    @property
    def order(self) -> int:
        """Which connection it is."""
        return self.record.order

    async def psk_party(self, scope: Scope) -> PskParty:
        """What goes into pre-shared keys with it.

        Raises:
            NotFound: The device is gone.
        """
        return await _psk_party(scope, self.device)

    def push(self, message: portal.Message) -> None:
        """Sends a message, if it is still there."""
        event, payload = messages.frame_of(message)
        self.sender.send(self.node_id, messages.Push("client", self.account_id, self.device_id, event, payload))

    def admit(self, message: portal.ClientDeviceAccessAuthorized, resource_id: str, grant: Grant) -> bool:
        """Lets another client reach it; false if it cannot be told."""
        event, payload = messages.frame_of(message)
        return self.sender.send(
            self.node_id,
            messages.Authorize(
                topic="client",
                account_id=self.account_id,
                device_id=self.device_id,
                resource_id=resource_id,
                authorization_id=grant.authorization_id,
                expires_at=grant.expires_at.timestamp(),
                ref=None,
                event=event,
                payload=payload,
                authorized_at=grant.authorized_at.timestamp() if grant.authorized_at else None,
            ),
        )


@dataclass(frozen=True, slots=True, eq=False)
class RemoteGateway:
    """A gateway of another portal."""

    node_id: str
    record: GatewayRecord
    sender: Sender

    @property
    def device_id(self) -> GatewayId:
        """The device."""
        return self.record.id

    @property
    def account_id(self) -> AccountId:
        """Whose it is."""
        return self.record.account_id

    @property
    def site_id(self) -> SiteId:
        """Where it serves."""
        return self.record.site_id

    @property
    def token_id(self) -> TokenId:
        """What it joined with."""
        return self.record.token_id

    @property
    def device(self) -> DeviceRecord:
        """As it was when it connected."""
        return self.record.device

    @property
    def is_joined(self) -> bool:
        """Whether it serves requests, and can be asked to."""
        return self.record.is_joined and self.sender.is_connected

    @property
    def has_iceless(self) -> bool:
        """Whether it can do without ICE."""
        return self.record.has_iceless

    @property
    def order(self) -> int:
        """Which connection it is."""
        return self.record.order

    @property
    def online(self) -> OnlineGateway:
        """What the choice of a gateway looks at."""
        return OnlineGateway(self.device_id, self.device.version, self.device.location)

    def gives_way_to(self, public_key: str) -> bool:
        """Whether a gateway of this id that comes with this key takes its place."""
        return self.record.is_silent or public_key == self.device.public_key

    async def psk_party(self, scope: Scope) -> PskParty:
        """What goes into pre-shared keys with it.

        Raises:
            NotFound: The device is gone.
        """
        return await _psk_party(scope, self.device)

    def push(self, message: portal.Message) -> None:
        """Sends a message, if it is still there."""
        event, payload = messages.frame_of(message)
        self.sender.send(self.node_id, messages.Push("gateway", self.account_id, self.device_id, event, payload))

    def new_ref(self, acknowledged: Answered, refused: Answered) -> str:
        """A reference for one request; one of the two is called with it, once, or neither."""
        return self.sender.refs.new(self.node_id, acknowledged, refused)

    def create(self, message: portal.CreateAuthorization, grant: Grant) -> None:
        """Lets a client in."""
        event, payload = messages.frame_of(message)
        is_sent = self.sender.send(
            self.node_id,
            messages.Authorize(
                topic="gateway",
                account_id=self.account_id,
                device_id=self.device_id,
                resource_id=message.resource.id,
                authorization_id=grant.authorization_id,
                expires_at=grant.expires_at.timestamp(),
                ref=message.ref,
                event=event,
                payload=payload,
                authorized_at=grant.authorized_at.timestamp() if grant.authorized_at else None,
            ),
        )
        if not is_sent:
            self.sender.refs.answer(message.ref, is_taken=False)


async def _psk_party(scope: Scope, device: DeviceRecord) -> PskParty:
    """The secret half of a device does not travel: it is read where it is needed."""
    row = await scope.get(Device, device.id)
    return PskParty(device.id, device.public_key, unseal(scope.keyring, row, "psk_base"))
