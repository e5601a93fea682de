"""What sinks are sent of a log row. A flow becomes two events: that it began, and that it ended.

Source: portal-domain-3 B7.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from wardgate.portal.domain.log_ids import Stream

_CLOSING: Final = (
    "flow_end",
    "last_packet",
    "outers",
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
)
_FLOW_FIELDS: Final = (
    "flow_start",
    "flow_end",
    "last_packet",
    "initiator_device_id",
    "responder_device_id",
    "role",
    "policy_authorization_id",
    "policy_id",
    "resource_id",
    "resource_name",
    "resource_address",
    "initiator_actor_id",
    "initiator_actor_email",
    "initiator_actor_name",
    "initiator_client_version",
    "initiator_device_os_name",
    "initiator_device_os_version",
    "protocol",
    "inner_src_ip",
    "inner_src_port",
    "inner_dst_ip",
    "inner_dst_port",
    "outers",
    "domain",
    "rx_packets",
    "tx_packets",
    "rx_bytes",
    "tx_bytes",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        at_ms: Milliseconds since 1970.
        text: The object as compact JSON in ASCII; it begins with `type` and `log_id`.
    """

    stream: Stream
    log_id: str
    seq: int
    at_ms: int
    text: str

    @property
    def message(self) -> str:
        """What destinations show of it as a line of text."""
        return f"firezone {self.stream} {self.log_id}"


def event(stream: Stream, shown: Mapping[str, Any], seq: int) -> Event:
    """The event of an object as the REST API shows it; flows have their own."""
    at = datetime.fromisoformat(str(shown["timestamp"]))
    return Event(stream, str(shown["log_id"]), seq, int(at.timestamp() * 1000), compact(shown))


def flow_events(shown: Mapping[str, Any], seq: int, *, start_was_sent: bool) -> list[Event]:
    """The events of a flow that are still to be sent."""
    values = {name: shown["inner_domain" if name == "domain" else name] for name in _FLOW_FIELDS}
    events = []
    if shown["flow_end"] is None or not start_was_sent:
        events.append(_flow_event(shown, "s", values["flow_start"], values | dict.fromkeys(_CLOSING), seq))
    if shown["flow_end"] is not None:
        events.append(_flow_event(shown, "e", values["flow_end"], values, seq))
    return events


def _flow_event(shown: Mapping[str, Any], suffix: str, at: str, values: Mapping[str, Any], seq: int) -> Event:
    return event("flow", {"type": "flow", "log_id": f"{shown['log_id']}-{suffix}", "timestamp": at, **values}, seq)


def was_passed_while_open(start_seq: int, seq: int, passes: Sequence[Sequence[int]]) -> bool:
    """Whether a cursor has surely sent a flow's beginning before the flow ended.

    That the cursor is past `start_seq` is not enough: a flow that ended before the cursor came there was not seen at
    `start_seq` any more.

    Args:
        seq: That of the end, so also the time of it.
        passes: The cursor's latest steps, oldest first: where it got to, and the number of the time of reading.
    """
    for position, read_seq in passes:
        if position >= start_seq:
            return read_seq < seq
    return False


def compact(value: Any) -> str:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def batches(events: Sequence[Event], *, max_events: int, max_bytes: int) -> list[list[Event]]:
    """Cuts events into batches; those of one number stay together, also if they alone are too many or too long."""
    cut: list[list[Event]] = []
    size = 0
    for group in groups(events):
        length = sum(len(one.text) + 1 for one in group)
        if not cut or len(cut[-1]) + len(group) > max_events or size + length > max_bytes:
            cut.append([])
            size = 0
        cut[-1].extend(group)
        size += length
    return cut


def groups(events: Sequence[Event]) -> list[list[Event]]:
    """Events by their numbers."""
    found: list[list[Event]] = []
    for one in events:
        if found and found[-1][0].seq == one.seq:
            found[-1].append(one)
        else:
            found.append([one])
    return found
