"""The recorded components against our portal: each ask is answered by frames of the recorded shape."""

from typing import Any

import pytest

from tests.unit.portal.helpers import Lab, make_lab
from tests.unit.portal.sockets.harness import Peer, PortalUnderTest
from tests.unit.wire.recordings import RECORDINGS, Recorded, read, version_of
from wardgate.portal.services import policies, resources, tokens
from wardgate.wire import portal
from wardgate.wire.portal import Frame, Json

CIDR, DNS = "00000000-0000-0000-0000-0000000000c1", "00000000-0000-0000-0000-0000000000d1"
RECORDED_IDS = {"client": "00000000-0000-0000-0000-0000000000aa", "gateway": "00000000-0000-0000-0000-0000000000bb"}


@pytest.mark.parametrize("name", RECORDINGS)
async def test_recorded_components_are_answered_in_the_recorded_shapes(server: PortalUnderTest, name: str) -> None:
    replay = await Replay.begin(server, name)
    compared = 0
    for line in read(name):
        if line.frame is None:
            await replay.dial(line)
        elif line.direction == ">portal":
            await replay.say(line.who, line.frame)
        else:
            ours = await replay.peers[line.who].next(line.frame.event)
            replay.learn(line.frame, ours)
            assert ours.ref is None
            assert differences(line.frame.payload, ours.payload) == []
            compared += 1
    assert compared >= 8


class Replay:
    """Speaks for the components, with ids and references that our portal gave."""

    def __init__(self, server: PortalUnderTest, name: str, lab: Lab, relay_token: str) -> None:
        self.peers: dict[str, Peer] = {}
        self._server = server
        self._version = version_of(name)
        self._tokens = {"client": lab.client_token, "gateway": lab.site_token, "relay": relay_token}
        self._ours: dict[str, str] = {}

    @classmethod
    async def begin(cls, server: PortalUnderTest, name: str) -> "Replay":
        lab = await make_lab(server.hub.db, slug="lab")
        async with server.hub.db.writing(lab.subject) as unit:
            dns = await resources.create_resource(
                unit, {"name": "app", "type": "dns", "address": "app.corp.example", "site_id": lab.site.id}
            )
            await policies.create_policy(unit, {"group_id": lab.group.id, "resource_id": dns.id})
        relay = await tokens.create_relay_token(server.hub.db)
        replay = cls(server, name, lab, relay.text)
        replay._ours |= {CIDR: lab.resource.id, DNS: dns.id}
        return replay

    async def dial(self, line: Recorded) -> None:
        """Connects as recorded, with a token of ours."""
        topic: Any = line.who
        query: dict[str, Any] = dict(line.query)
        self.peers[line.who] = await self._server.connect(
            topic,
            self._tokens[line.who],
            version=self._version,
            path=line.path,
            agent=line.user_agent,
            **query,
        )

    async def say(self, who: str, frame: Frame) -> None:
        """Sends a recorded frame; joins and heartbeats must be confirmed."""
        peer = self.peers[who]
        await peer.send_frame(Frame(frame.topic, frame.event, self._with_our_ids(frame.payload), frame.ref))
        if frame.event in (portal.JOIN, portal.HEARTBEAT, "authorization_created", "flow_authorized"):
            assert await peer.next(portal.REPLY) == portal.reply_ok(frame.topic, frame.ref)
        if frame.event == portal.JOIN and who in RECORDED_IDS:
            await self._learn_device(who)

    async def _learn_device(self, who: str) -> None:
        presence = self._server.hub.presence
        channels: list[Any] = [*(presence.all_clients() if who == "client" else presence.all_gateways())]
        self._ours[RECORDED_IDS[who]] = channels[0].device_id

    def learn(self, recorded: Frame, ours: Frame) -> None:
        """Takes over the reference that the gateway is to give back."""
        if isinstance(recorded.payload, dict) and isinstance(ours.payload, dict) and "ref" in recorded.payload:
            self._refs = {str(recorded.payload["ref"]): str(ours.payload["ref"])}

    _refs: dict[str, str]

    def _with_our_ids(self, payload: Json) -> Json:
        if isinstance(payload, dict):
            return {
                key: self._refs[str(value)] if key == "ref" else self._with_our_ids(value)
                for key, value in payload.items()
            }
        if isinstance(payload, list):
            return [self._with_our_ids(one) for one in payload]
        return self._ours.get(payload, payload) if isinstance(payload, str) else payload


def differences(recorded: Json, ours: Json, place: str = "") -> list[str]:
    """Where ours lacks a recorded key or has another type; a recorded null may be anything, and more keys are fine."""
    if recorded is None or (ours is None and place.endswith(NULLABLE)):
        return []
    if isinstance(recorded, dict) and isinstance(ours, dict):
        missing = [f"{place}.{key} is missing" for key in recorded if key not in ours]
        return missing + [
            text for key in recorded if key in ours for text in differences(recorded[key], ours[key], f"{place}.{key}")
        ]
    if isinstance(recorded, list) and isinstance(ours, list):
        if recorded and not ours:
            return [f"{place} is empty"]
        return [text for one in ours if recorded for text in differences(_like(recorded, one), one, f"{place}[]")]
    return [] if type(recorded) is type(ours) else [f"{place} is {type(ours).__name__}, not {type(recorded).__name__}"]


NULLABLE = (".auth_provider_id",)


def _like(recorded: list[Json], one: Json) -> Json:
    """The recorded element of the same type, for lists of tagged objects."""
    for each in recorded:
        if isinstance(each, dict) and isinstance(one, dict) and each.get("type") == one.get("type"):
            return each
    return recorded[0]
