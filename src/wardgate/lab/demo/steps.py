"""The story itself: nine things that must be true, each shown on real processes."""

import json
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardgate.errors import LabError
from wardgate.lab.demo import app
from wardgate.lab.demo.cast import Cast, whole_blocks
from wardgate.lab.demo.story import Story
from wardgate.lab.operations import rules

APP_NAME = "app.corp.example"
APP_URL = f"http://{APP_NAME}/"
CIDR_URL = "http://10.9.0.2/"
NEIGHBOUR_URL = "http://10.9.0.3/"
PLAIN_URL = "http://203.0.113.31:8080"
HELLO = app.HELLO.decode()
DOWNLOAD_BYTES = whole_blocks(1_000_000_000) + app.BLOCK
PLAIN_BYTES = whole_blocks(200_000_000)
RELAYED_BYTES = whole_blocks(100_000_000)
LIVE_S = 1.0  # how soon a change of a policy must be felt
FAILOVER_S = 5.0
SOON_S = 15.0
CAPTURED_PACKETS = 4000
OUR_WATCH = [sys.executable, "-m", "wardgate.lab.demo.watch"]
ENDLESS_BYTES = 50_000_000_000


@dataclass
class Account:
    """What the admin made: ids by name."""

    policies: dict[str, str] = field(default_factory=dict)


def require(condition: Any, text: str) -> None:
    """Says what is not as the story tells it.

    Raises:
        LabError: The condition does not hold.
    """
    if not condition:
        raise LabError(text)


# --- 1 ---


def portal_starts(story: Story, cast: Cast) -> None:
    """The portal runs, and an admin makes what an account needs."""
    with story.step("1", "the portal starts on SQLite and sets itself up", cast.processes):
        words = ["--database", f"sqlite:///{cast.database}", "--account", "corp", "--email", "admin@corp.example"]
        made = cast.wardgate("portal", "portal", "setup", *words, "--json").check()
        cast.tokens["api"] = parse_json(made.stdout)["api_token"]
        cast.start_portal()
    with story.step("1", "the admin makes a site, a group, a user, resources and tokens", cast.processes):
        cast.admin("sites", "create", "office")
        cast.admin("groups", "create", "engineering")
        cast.admin("actors", "create", "Mia Berg", "--type", "account_user", "--email", "mia@corp.example")
        cast.admin("groups", "add", "engineering", "Mia Berg")
        dns = ["--type", "dns", "--address", APP_NAME, "--site", "office", "--filter", "tcp:80", "--filter", "icmp"]
        cast.admin("resources", "create", "wiki", *dns)
        cidr = ["--type", "ip", "--address", "10.9.0.2", "--site", "office", "--filter", "tcp:80", "--filter", "icmp"]
        cast.admin("resources", "create", "wiki by address", *cidr)
        cast.tokens["gateway"] = cast.admin("gateway-tokens", "create", "--site", "office")["token"]
        cast.tokens["relay"] = operator(cast, "relay-token")["token"]
        made_token = operator(cast, "client-token", "--account", "corp", "--actor", "mia@corp.example")
        cast.tokens["client"] = made_token["token"]


def operator(cast: Cast, *words: str) -> dict[str, Any]:
    """What an operator's command on the portal's machine printed."""
    done = cast.wardgate("portal", "portal", *words, "--database", f"sqlite:///{cast.database}", "--json").check()
    return parse_json(done.stdout)


# --- 2 ---


def members_join(story: Story, cast: Cast) -> None:
    """Relay, gateway and client join; a wrong token does not."""
    with story.step("2", "relay, gateway and client join with their tokens", cast.processes):
        cast.start_relay()
        cast.start_gateway()
        cast.start_client()
        wait_joined(cast)
    with story.step("2", "a wrong token is refused, and the gateway says so", cast.processes):
        env = {"WARDGATE_TOKEN": ".wrong", "WARDGATE_ID": "impostor"}
        refused = cast.wardgate("gateway-2", "gateway", "--api-url", "ws://203.0.113.10:8080", env=env)
        require(refused.returncode == 1, f"exit status {refused.returncode} instead of 1")
        story.say(last_line(refused.stderr or refused.stdout))
    with story.step("2", "a revoked token is refused, also to who is already in", cast.processes):
        token = cast.admin("gateway-tokens", "create", "--site", "office")
        identity = {"WARDGATE_TOKEN": token["token"], "WARDGATE_ID": "revoked", "WARDGATE_NAME": "revoked"}
        revoked = cast.start_member("revoked", "gateway-2", "gateway", env=identity)
        cast.wait(lambda: "revoked" in online_gateways(cast), SOON_S, "the gateway joins", revoked)
        cast.admin("gateway-tokens", "revoke", "--site", "office", token["id"])
        require(revoked.wait(5.0) == 1, f"exit status {revoked.returncode} instead of 1")
        story.say(last_line(revoked.log()))


# --- 3 ---


def nothing_is_allowed(story: Story, cast: Cast) -> None:
    """Without a policy there is no way in, and the portal says why."""
    with story.step("3", "without a policy the client cannot reach the app", cast.processes):
        for url in (APP_URL, CIDR_URL):
            answer = cast.curl(url, timeout_s=2)
            require(answer.returncode != 0, f"{url} answered without a policy")
    with story.step("3", "the portal, asked for this person and this resource, says why", cast.processes):
        explained = cast.admin("explain", "Mia Berg", "wiki")
        require(not explained["allowed"] and explained["reasons"], "the portal gave no reason")
        story.say("\n".join(reason["text"] for reason in explained["reasons"]))


# --- 4 ---


def policy_is_added(story: Story, cast: Cast, account: Account) -> None:
    """A policy makes both resources reachable while everything runs."""
    client = cast.processes["client"]
    text = "a policy is added while everything runs: the client may within 1 s, without reconnecting"
    with story.step("4", text, cast.processes):
        joins_before = cast.status().get("portal_connections")
        began = time.monotonic()
        for name in ("wiki", "wiki by address"):
            made = cast.admin("policies", "create", "--group", "engineering", "--resource", name)
            account.policies[name] = made["id"]
        policies_made = time.monotonic()
        cast.wait(lambda: answers(cast, CIDR_URL), SOON_S, f"{CIDR_URL} answers", client)
        felt_s = time.monotonic() - policies_made
        story.say(f"policies made in {policies_made - began:.2f} s, app reached {felt_s:.2f} s after the last one")
        require(felt_s < LIVE_S, f"it took {felt_s:.2f} s")
        require(cast.status().get("portal_connections") == joins_before, "the client reconnected")
    with story.step("4", f"curl {APP_URL} works, through a proxy address of the client's resolver", cast.processes):
        asked_before = cast.processes["public-dns"].log()
        cast.wait(lambda: answers(cast, APP_URL), SOON_S, f"{APP_URL} answers", client)
        resolved = cast.lab.node("client").run(["getent", "ahostsv4", APP_NAME]).check().stdout.split()[0]
        require(resolved.startswith(("100.96.", "100.97.", "100.98.")), f"{APP_NAME} is {resolved}")
        story.say(f"{APP_NAME} is {resolved} to this client; the public resolver is not asked for it any more")
        asked = cast.processes["public-dns"].log()[len(asked_before) :]
        require(APP_NAME not in asked, "the name leaked to the public resolver")


def big_download(story: Story, cast: Cast) -> None:
    """A gigabyte arrives whole; the wan sees none of its text."""
    with story.step("4", "for comparison, 200 MB by the plain path: a port is opened and closed again", cast.processes):
        with opened_port(cast), captured(cast, "plain") as plain_capture:
            plain = cast.download(f"{PLAIN_URL}/bytes/{PLAIN_BYTES}")
        require(app.MARKER in plain_capture(), "the capture does not even see the plain path's text")
        story.say(f"{plain.gbit_per_s:.2f} Gbit/s")
    for url, count, words in ((CIDR_URL, DOWNLOAD_BYTES, "1 GB"), (APP_URL, PLAIN_BYTES, "200 MB")):
        with story.step("4", f"{words} from {url}, with the right checksum", cast.processes):
            with captured(cast, "tunnel") as tunnel_capture:
                done = cast.download(f"{url}bytes/{count}")
            require(done.received == count, f"{done.received} bytes arrived, not {count}")
            require(done.digest == app.digest(count), "the checksum is wrong")
            story.say(f"{done.gbit_per_s:.2f} Gbit/s, {done.gbit_per_s / plain.gbit_per_s:.2f} of the plain path")
    with story.step("5", "a capture on the wan during the download has none of its plain text"):
        packets = tunnel_capture()
        require(len(packets) > 100_000, f"the capture has only {len(packets)} bytes")
        require(app.MARKER not in packets, "the wan saw plain text")
        story.say(f"{len(packets) // 1000} kB of it searched; the plain path's capture had the text")


# --- 5, 6 ---


def path_is_shown(story: Story, cast: Cast, number: str, kind: str) -> None:
    """The client names the path it uses."""
    with story.step(number, f"the path is {kind}", cast.processes):
        cast.wait(lambda: path_of(cast).get("kind") == kind, SOON_S, f"the path is {kind}")
        path = path_of(cast)
        require(kind != "direct" or path["remote"].startswith("203.0.113.31:"), f"the far end is {path['remote']}")
        ends = seen_on_wan(cast) if kind == "direct" else f"{path['local']} → {path['remote']}"
        story.say(f"{ends}, round trip {path['rtt_ms'] or 0:.1f} ms, {path['mode']}")


def relayed_download(story: Story, cast: Cast) -> None:
    """Through the relay, where no hole can be punched."""
    with story.step("6", "symmetric NATs on both sides: it works all the same", cast.processes):
        cast.wait(lambda: answers(cast, APP_URL), SOON_S, f"{APP_URL} answers", cast.processes["client"])
    path_is_shown(story, cast, "6", "relayed")
    with story.step("6", "100 MB through the relay, with the right checksum", cast.processes):
        done = cast.download(f"{CIDR_URL}bytes/{RELAYED_BYTES}")
        require(done.digest == app.digest(RELAYED_BYTES), "the checksum is wrong")
        story.say(f"{done.gbit_per_s:.2f} Gbit/s")


# --- 7 ---


def filters_hold(story: Story, cast: Cast) -> None:
    """What is not allowed is refused."""
    with story.step("7", "a port that the filter does not allow is refused", cast.processes):
        for url in ("http://10.9.0.2:8081/", f"http://{APP_NAME}:8081/"):
            began = time.monotonic()
            answer = cast.curl(url)
            require(answer.returncode == 7, f"{url}: curl ended with {answer.returncode}: {answer.stderr}")
            story.say(f"{last_line(answer.stderr)} ({time.monotonic() - began:.2f} s)")
        served = cast.curl("http://10.9.0.2:8081/", node="gateway-1")
        require(served.returncode == 0, "nothing listens on that port, so the refusal shows nothing")
    with story.step("7", "a neighbour of the app, outside the resource, is refused", cast.processes):
        require(cast.curl(NEIGHBOUR_URL, node="gateway-1").returncode == 0, "the neighbour does not listen at all")
        require(cast.curl(NEIGHBOUR_URL, timeout_s=2).returncode != 0, "the neighbour answered")


# --- 8 ---


def policy_is_removed(story: Story, cast: Cast, account: Account) -> None:
    """Access ends at once, and the client says why."""
    with story.step("8", "a policy is removed: the running download stops within 1 s", cast.processes):
        command = ["curl", "--silent", "--show-error", "-o", "/dev/null", f"{CIDR_URL}bytes/{ENDLESS_BYTES}"]
        running = cast.start("download", "client", command)
        time.sleep(1.0)
        require(running.running, f"the download ended by itself: {running.log()}")
        cast.admin("policies", "delete", account.policies["wiki by address"])
        began = time.monotonic()
        try:
            running.wait(LIVE_S)
        except TimeoutError:
            raise LabError("the download still runs after 1 s") from None
        story.say(f"stopped after {time.monotonic() - began:.2f} s: {last_line(running.log())}")
    with story.step("8", "the client sees why", cast.processes):
        ended = [row for row in cast.status().get("denials", []) if row["resource"] == "wiki by address"]
        require(ended, "the status says nothing of it")
        story.say(f"{ended[-1]['resource']}: {ended[-1]['reason']}, {ended[-1]['flows_cut']} flow ended")
        require(cast.curl(CIDR_URL, timeout_s=2).returncode != 0, "the app still answers")
        require(answers(cast, APP_URL), "the other resource stopped working, too")


# --- 9 ---


def gateway_is_killed(story: Story, cast: Cast) -> None:
    """Another gateway of the site takes over."""
    with story.step("9", "a second gateway of the site joins", cast.processes):
        second = cast.start_gateway("gateway-2")
        cast.wait(lambda: len(online_gateways(cast)) == 2, SOON_S, "both gateways are online", second)
        require(answers(cast, APP_URL), "the app does not answer")
    text = "the gateway in use is killed: new connections work through the other within 5 s"
    with story.step("9", text, cast.processes):
        used = gateway_in_use(cast)
        cast.processes[used].kill()
        began = time.monotonic()
        cast.wait(lambda: answers(cast, APP_URL, timeout_s=0.5), 30.0, "the app answers again")
        took_s = time.monotonic() - began
        story.say(f"{used} was killed; the app answered {took_s:.1f} s later, through {gateway_in_use(cast)}")
        require(took_s < FAILOVER_S, f"it took {took_s:.1f} s")
        require(gateway_in_use(cast) != used, "the client still names the dead gateway")


# --- helpers ---


def answers(cast: Cast, url: str, timeout_s: float = 2.0) -> bool:
    """Whether the app says hello."""
    return cast.curl(url, timeout_s=timeout_s).stdout == HELLO


def online_gateways(cast: Cast) -> list[str]:
    """Names of the site's gateways that are online, in order."""
    return sorted(row["name"] for row in cast.admin("gateways", "list", "--site", "office") if row["online"])


def gateway_in_use(cast: Cast) -> str:
    """The name of the gateway that the client reaches the wiki through."""
    gateway_id = cast.resource("wiki").get("gateway_id")
    rows = cast.admin("gateways", "list", "--site", "office")
    return next((str(row["name"]) for row in rows if row["id"] == gateway_id), "nobody")


def seen_on_wan(cast: Cast) -> str:
    """Which two public endpoints the tunnel's datagrams have, as the wan sees them.

    Raises:
        LabError: They are not the public addresses of the two NATs.
    """
    words = ["tcpdump", "-n", "-q", "-i", "any", "-c", "1", "udp and src host 203.0.113.21 and dst host 203.0.113.31"]
    if not cast.can_use_tcpdump():
        words = [*OUR_WATCH, "route", "203.0.113.21", "203.0.113.31"]
    watch = cast.start("watch-wan", "wan", words)
    cast.wait(lambda: "listening" in watch.log(), 5.0, "tcpdump listens", watch)
    cast.curl(APP_URL)
    cast.wait(lambda: not watch.running, 5.0, "a datagram between the NATs' public addresses")
    found = re.search(r"IP (203\.0\.113\.21)\.(\d+) > (203\.0\.113\.31)\.(\d+)", watch.log())
    require(found, f"the wan saw something else: {last_line(watch.log())}")
    return "{}:{} → {}:{} on the wan, no port forwarded".format(*found.groups()) if found else ""


def path_of(cast: Cast) -> dict[str, Any]:
    """What the client says of the path to the wiki."""
    return cast.resource("wiki").get("path") or {}


@contextmanager
def opened_port(cast: Cast) -> Iterator[None]:
    """Forwards a port of the gateways' router to the app, for as long as the block lasts."""
    table = "table ip plain\ndelete table ip plain\n"
    rule = "iifname wan0 tcp dport 8080 dnat to 10.9.0.2:80"
    chain = f"chain inward {{ type nat hook prerouting priority -101;\n{rule}\n}}"
    cast.lab.apply([rules("gateway-nat", f"{table}table ip plain {{\n{chain}\n}}\n")])
    try:
        yield
    finally:
        cast.lab.apply([rules("gateway-nat", table)])


@contextmanager
def captured(cast: Cast, name: str) -> Iterator[Any]:
    """Captures on the wan; gives a function that, after the block, has the captured bytes."""
    path = cast.directory / f"{name}.pcap"
    words = ["tcpdump", "-i", "any", "-s", "400", "-c", str(CAPTURED_PACKETS), "-U", "-w", str(path), "ip"]
    if not cast.can_use_tcpdump():
        words = [*OUR_WATCH, "save", str(path), str(CAPTURED_PACKETS)]
    tcpdump = cast.start(f"capture-{name}", "wan", words)
    cast.wait(lambda: "listening" in tcpdump.log(), 5.0, "tcpdump listens", tcpdump)
    try:
        yield path.read_bytes
    finally:
        tcpdump.stop()


def parse_json(text: str) -> dict[str, Any]:
    """Reads the JSON object that a command printed."""
    value: dict[str, Any] = json.loads(text)
    return value


def last_line(text: str) -> str:
    """The last line that says something, without colours."""
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def wait_joined(cast: Cast) -> None:
    """Waits until client and gateway are in."""
    client, gateway = cast.processes["client"], cast.processes["gateway-1"]
    cast.wait(lambda: cast.status().get("portal") == "up", SOON_S, "the client joins", client)
    cast.wait(lambda: "gateway-1" in online_gateways(cast), SOON_S, "the gateway joins", gateway)


def copy_database(source: Path, target: Path) -> None:
    """Copies a database that is in use, and the key of its secrets."""
    with closing(sqlite3.connect(source)) as before, closing(sqlite3.connect(target)) as after:
        before.backup(after)
    key, copied = (path.with_name(path.name + ".key") for path in (source, target))
    copied.touch(mode=0o600)
    copied.write_bytes(key.read_bytes())
