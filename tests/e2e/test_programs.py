"""The real programs in the lab, as `make demo` does not show them: V1 sockets, classic ICE, a gateway that moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv6Address
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


@pytest.mark.parametrize("iceless", [True, False])
def test_a_gateway_whose_address_changes_is_reached_again(tmp_path: Path, *, iceless: bool) -> None:
    with joined(tmp_path, NatKind.PORT_RESTRICTED, {}, {}, iceless=iceless) as cast:
        cast.admin("policies", "create", "--group", "engineering", "--resource", "wiki by address")
        cast.wait(partial(steps.answers, cast, steps.CIDR_URL), 20.0, "the app answers")

        cast.lab.move_host("gateway-1", "gateway", IPv4Address("10.9.0.77"), IPv6Address("2001:db8:9::77"))

        cast.wait(partial(steps.answers, cast, steps.CIDR_URL), 20.0, "the app answers again")
        log = cast.processes["gateway-1"].log()
        niceness = {program: niceness_of_threads(cast.processes[program].pid) for program in ("gateway-1", "client")}

    assert "looking for new paths" in log
    for of_threads in niceness.values():
        assert of_threads["tun-to-net"] == of_threads["net-to-tun"] < of_threads["wardgate"]


def niceness_of_threads(pid: int) -> dict[str, int]:
    """By the threads' names; of equal ones that of the process's first thread."""
    found: dict[str, int] = {}
    for task in sorted(Path(f"/proc/{pid}/task").iterdir(), key=lambda task: int(task.name)):
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        found.setdefault(name, int(rest.split()[16]))
    return found


@contextmanager
def joined(
    directory: Path,
    nat: NatKind,
    client_env: dict[str, str],
    gateway_env: dict[str, str],
    *,
    iceless: bool = False,
) -> Iterator[Cast]:
    """A portal with an account, and a relay, gateway and client that have joined it."""
    story = Story()
    with playing(story, directory, topologies.demo(nat, nat)) as cast:
        steps.portal_starts(story, cast)
        steps.operator(cast, "features", "--account", "corp", "--enable" if iceless else "--disable", "iceless")
        cast.start_relay()
        cast.start_gateway(env=gateway_env)
        cast.start_client(env=client_env)
        steps.wait_joined(cast)
        yield cast
