"""Two aioice agents that may use nothing but a relay: a program of its own, run by the Python of .venv-interop.

It reads one JSON object, {"server", "username", "password", "transport", "tls", "datagrams"}, and prints another.
"""

import asyncio
import json
import sys
from typing import Any

import aioice

SIZES = (1, 2, 3, 4, 5, 100, 1000, 1200)


async def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Connects two agents, echoes datagrams between them, and tells by what candidates."""
    left, right = (agent(settings, is_controlling) for is_controlling in (True, False))
    try:
        await asyncio.gather(left.gather_candidates(), right.gather_candidates())
        await asyncio.gather(tell(left, right), tell(right, left))
        await asyncio.gather(left.connect(), right.connect())
        echoed = await echo(left, right, settings["datagrams"])
        candidates = [*left.local_candidates, *right.local_candidates]
        return {"echoed": echoed, "kinds": [candidate.type for candidate in candidates]}
    finally:
        await asyncio.gather(left.close(), right.close())


def agent(settings: dict[str, Any], is_controlling: bool) -> aioice.Connection:
    return aioice.Connection(
        ice_controlling=is_controlling,
        turn_server=tuple(settings["server"]),
        turn_username=settings["username"],
        turn_password=settings["password"],
        turn_transport=settings["transport"],
        turn_ssl=settings["tls"],
        use_ipv6=False,
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def tell(speaker: aioice.Connection, listener: aioice.Connection) -> None:
    listener.remote_username, listener.remote_password = speaker.local_username, speaker.local_password
    for candidate in speaker.local_candidates:
        await listener.add_remote_candidate(candidate)
    await listener.add_remote_candidate(None)


async def echo(left: aioice.Connection, right: aioice.Connection, count: int) -> int:
    """How many of `count` datagrams came to the other side and back unharmed."""
    unharmed = 0
    for number in range(count):
        payload = bytes([number % 256]) * SIZES[number % len(SIZES)]
        await left.send(payload)
        await right.send(await asyncio.wait_for(right.recv(), 5))
        unharmed += await asyncio.wait_for(left.recv(), 5) == payload
    return unharmed


if __name__ == "__main__":
    print(json.dumps(asyncio.run(asyncio.wait_for(main(json.load(sys.stdin)), 40))))
