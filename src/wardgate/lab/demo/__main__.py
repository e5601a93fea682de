"""Tells the story: `python -m wardgate.lab.demo [--stay]`."""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from wardgate.errors import LabError, LabUnavailable
from wardgate.lab import topologies
from wardgate.lab.demo import steps
from wardgate.lab.demo.cast import PORTAL_URL, WARDGATE, Cast
from wardgate.lab.demo.story import StepFailed, Story
from wardgate.lab.demo.workplace import Ended, end_on_signals, workplace
from wardgate.lab.lab import Lab
from wardgate.lab.process import Process
from wardgate.lab.topology import NatKind, Topology


def main() -> int:
    """Runs the demo; gives the exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--stay", action="store_true", help="leave the lab running and say how to look around in it")
    parser.add_argument("--keep-logs", action="store_true", help="leave the directory with logs and captures behind")
    arguments = parser.parse_args()
    end_on_signals()
    try:
        with workplace(keep=arguments.keep_logs) as directory:
            if arguments.keep_logs:
                print(f"logs are kept in {directory}", flush=True)
            return stay(directory) if arguments.stay else tell(directory)
    except Ended as ended:
        with suppress(OSError):  # the terminal may be gone
            print(f"\ndemo: ended by {ended}; everything is cleaned up", flush=True)
        return 128 + ended.number
    except LabUnavailable as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def tell(directory: Path) -> int:
    """Tells the whole story."""
    story = Story()
    try:
        story.chapter("client --- NAT --- [ wan: portal, relay ] --- NAT --- gateways --- app")
        with playing(story, directory, topologies.demo()) as cast:
            account = steps.Account()
            steps.portal_starts(story, cast)
            steps.members_join(story, cast)
            steps.nothing_is_allowed(story, cast)
            steps.policy_is_added(story, cast, account)
            steps.path_is_shown(story, cast, "5", "direct")
            steps.big_download(story, cast)
            steps.filters_hold(story, cast)
            with_symmetric_nats(story, cast, directory)
            steps.policy_is_removed(story, cast, account)
            steps.gateway_is_killed(story, cast)
    except StepFailed as failure:
        print(f"\ndemo: step {failure.number} failed after {story.elapsed_s():.0f} s", flush=True)
        return 1
    except LabUnavailable:
        raise
    except LabError as error:
        print(f"\ndemo: failed: {error}", flush=True)
        return 1
    print(f"\ndemo: ok ({story.elapsed_s():.0f} s)", flush=True)
    return 0


def with_symmetric_nats(story: Story, cast: Cast, directory: Path) -> None:
    """The same people and policies in a second internet, where holes cannot be punched."""
    story.chapter("the same behind symmetric NATs on both sides")
    apart = directory / "symmetric"
    apart.mkdir()
    database = apart / "portal.db"
    steps.copy_database(cast.database, database)
    with playing(story, apart, topologies.demo(NatKind.SYMMETRIC, NatKind.SYMMETRIC), database) as other:
        other.tokens |= cast.tokens
        with story.step("6", "portal, relay, gateway and client start", other.processes):
            other.start_portal()
            other.start_relay()
            other.start_gateway()
            other.start_client()
            steps.wait_joined(other)
        steps.relayed_download(story, other)
    story.chapter("back to the first one")


@contextmanager
def playing(story: Story, directory: Path, topology: Topology, database: Path | None = None) -> Iterator[Cast]:
    """A lab with the programs that are not ours: the app, its neighbour, the public resolver."""
    with Lab(topology) as lab:
        story.say(f"{len(lab.nodes)} network namespaces made in {lab.setup_s:.1f} s")
        cast = Cast(lab, directory, database or directory / "portal.db")
        python = [sys.executable, "-m"]
        cast.start("app", "app", [*python, "wardgate.lab.demo.app", "80"])
        cast.start("app-8081", "app", [*python, "wardgate.lab.demo.app", "8081"])
        cast.start("neighbour", "neighbour", [*python, "wardgate.lab.demo.app", "80"])
        cast.start("public-dns", "portal", [*python, "wardgate.lab.demo.public_dns", "203.0.113.10"])
        lab.node("client").write_text("/etc/resolv.conf", "nameserver 203.0.113.10\n")
        for name in ("app", "app-8081", "neighbour", "public-dns"):
            process = cast.processes[name]
            cast.wait(partial(says_listening, process), 10.0, f"{name} listens", process)
        yield cast


def says_listening(process: Process) -> bool:
    """Whether a server has said that it is ready."""
    return "listening" in process.log()


def stay(directory: Path) -> int:
    """Leaves the lab running until Ctrl-C."""
    story = Story()
    try:
        with playing(story, directory, topologies.demo()) as cast:
            account = steps.Account()
            steps.portal_starts(story, cast)
            steps.members_join(story, cast)
            steps.policy_is_added(story, cast, account)
            cast.start_gateway("gateway-2")
            explain_where_things_are(cast)
            while True:
                time.sleep(3600)
    except StepFailed as failure:
        print(f"\ndev: step {failure.number} failed", flush=True)
        return 1
    except LabUnavailable:
        raise
    except LabError as error:
        print(f"\ndev: failed: {error}", flush=True)
        return 1


def explain_where_things_are(cast: Cast) -> None:
    """Says what to try in the running lab."""
    secret = cast.directory / "api-token"
    secret.touch(0o600)
    secret.write_text(cast.tokens["api"])

    admin = f"{WARDGATE} admin --url {PORTAL_URL} --token-file {secret}"

    def inside(node: str) -> str:
        return f"nsenter -t {cast.lab.node(node).holder_pid} -m -n -u"

    print(
        f"""
The lab runs until Ctrl-C. In another terminal, as the same user:

  the client's view     {inside("client")} {WARDGATE} client status
  reach the app         {inside("client")} curl http://app.corp.example/
  the client's shell    {inside("client")} bash
  watch the wan         {inside("wan")} tcpdump -n -i any udp
  manage the account    {inside("portal")} {admin} policies list
  the API's document    {inside("portal")} curl http://203.0.113.10:8080/openapi.json

Logs: {cast.directory}/*.log""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
