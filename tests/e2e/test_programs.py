"""The real programs in the lab, in the ways that `make demo` does not show: V1 sockets, classic ICE."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from wardgate.lab import topologies
from wardgate.lab.demo import steps
from wardgate.lab.demo.__main__ import playing
from wardgate.lab.demo.cast import Cast
from wardgate.lab.demo.story import Story
from wardgate.lab.topology import NatKind

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]
V1 = {"WARDGATE_PORTAL_VERSION": "1"}


@pytest.mark.parametrize(
    ("nat", "client_env", "gateway_env", "kind"),
    [
        (NatKind.PORT_RESTRICTED, V1, V1, "direct"),
        (NatKind.SYMMETRIC, {}, V1, "relayed"),
    ],
)
def test_v1_sockets_and_classic_ice_reach_the_app(
    tmp_path: Path, nat: NatKind, client_env: dict[str, str], gateway_env: dict[str, str], kind: str
) -> None:
    with joined(tmp_path, nat, client_env, gateway_env) as cast:
        for resource in ("wiki", "wiki by address"):
            cast.admin("policies", "create", "--group", "engineering", "--resource", resource)

        for url in (steps.APP_URL, steps.CIDR_URL):
            cast.wait(partial(steps.answers, cast, url), 20.0, f"{url} answers")
        cast.wait(lambda: steps.path_of(cast).get("kind") == kind, 20.0, f"the path is {kind}")
        path = steps.path_of(cast)

    assert path["mode"] == "ice"


@contextmanager
def joined(directory: Path, nat: NatKind, client_env: dict[str, str], gateway_env: dict[str, str]) -> Iterator[Cast]:
    """A portal with an account, and a relay, gateway and client that have joined it."""
    story = Story()
    with playing(story, directory, topologies.demo(nat, nat)) as cast:
        steps.portal_starts(story, cast)
        steps.operator(cast, "features", "--account", "corp", "--disable", "iceless")
        cast.start_relay()
        cast.start_gateway(env=gateway_env)
        cast.start_client(env=client_env)
        steps.wait_joined(cast)
        yield cast
