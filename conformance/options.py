"""The command line: what is tested, with whose credentials, and where the results go."""

import argparse
import ipaddress
import re
import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from conformance.credentials import User, Users, rest_users, static_users
from conformance.lab import Target
from conformance.links import local_address_toward
from conformance.registry import Requirement
from conformance.wire import Address

DEFAULT_PORTS = {"udp": 3478, "tcp": 3478, "tls": 5349}

EPILOG = """\
exit status: 0 if no MUST fails, 1 if one does, 2 if the command line is wrong or the server is not there; without
--server, 0 if our relay breaks what it breaks on purpose (conformance/deliberate.py) and nothing else.

examples:
  python -m conformance                                    our relay and coturn; --slow: docs/conformance.md
  python -m conformance --list --only '8656-7.*'
  python -m conformance --server turn.example.net --secret "$SECRET" --json result.json
  python -m conformance --server 192.0.2.7:3478 --transport tcp --username u --password p --only MUST
"""


@dataclass(frozen=True)
class Options:
    """The command line, read and checked; without `target`, the two servers that are at hand are started."""

    target: Target | None
    only: tuple[str, ...]
    slow: bool
    list_only: bool
    quiet: bool
    json: Path | None
    markdown: Path | None

    def choose(self, requirements: list[Requirement]) -> list[Requirement]:
        """The requirements that `--only` names."""
        return [each for each in requirements if not self.only or any(_matches(each, one) for one in self.only)]


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; ends the program with status 2 and a message when it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.server is None:
        named = ("username", "password", "secret", "realm", "peer_address", "server6", "other_username")
        for name in named:
            if getattr(given, name) is not None:
                parser.error(f"--{name.replace('_', '-')} says something about a server: name it with --server")
    try:
        target = None if given.server is None else _target(given)
    except ValueError as error:
        parser.error(str(error))
    for path in (given.json, given.markdown):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path.parent} is no directory")
    return Options(target, tuple(given.only), given.slow, given.list, given.quiet, given.json, given.markdown)


def parse_server(text: str, transport: str) -> Address:
    """`host`, `host:port`, `[IPv6]:port`, resolved.

    Raises:
        ValueError: It is none of these, or the name is not known.
    """
    bracketed = re.fullmatch(r"\[(.*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, None
    port = str(DEFAULT_PORTS[transport]) if port is None else port
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no host:port: {port!r} is no port")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise ValueError(f"no address is known for {host!r}: {error}") from error
    return Address(str(found[0][4][0]), int(port))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description="Tests a STUN and TURN server from outside, requirement by requirement, against RFC 8489 and 8656.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    server = parser.add_argument_group("the server")
    server.add_argument(
        "--server", metavar="HOST[:PORT]", help="the server; without it coturn and our relay are started"
    )
    server.add_argument(
        "--server6", metavar="[IPV6]:PORT", help="the same server's IPv6 address, for what concerns both"
    )
    server.add_argument("--transport", choices=("udp", "tcp", "tls"), default="udp", help="how to talk to it (udp)")
    server.add_argument("--username", metavar="NAME", help="static long-term credentials")
    server.add_argument("--password", metavar="TEXT", help="the password of --username")
    server.add_argument(
        "--other-username", metavar="NAME", help="a second user, for what users must not do to each other"
    )
    server.add_argument("--other-password", metavar="TEXT", help="the password of --other-username")
    server.add_argument(
        "--secret", metavar="TEXT", help="TURN REST secret, instead: every client gets a name of its own"
    )
    server.add_argument("--realm", metavar="TEXT", help="the realm of the credentials (the one that the server names)")
    server.add_argument(
        "--peer-address", metavar="IP", help="a local address where the server reaches our peers (the one it sees)"
    )
    what = parser.add_argument_group("what is run")
    what.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        default=[],
        help="ids or levels that match, as in '8656-12.*' (repeatable)",
    )
    what.add_argument("--slow", action="store_true", help="also what waits for expiry; eleven minutes more")
    what.add_argument("--list", action="store_true", help="print the requirements and run nothing")
    results = parser.add_argument_group("results")
    results.add_argument("--json", metavar="FILE", type=Path, help="write results as JSON")
    results.add_argument("--markdown", metavar="FILE", type=Path, help="write the table as Markdown")
    results.add_argument("--quiet", action="store_true", help="print failures and the summary only")
    return parser


def _target(given: argparse.Namespace) -> Target:
    server = parse_server(given.server, given.transport)
    try:
        peer_host = given.peer_address or local_address_toward(server)
        ipaddress.ip_address(peer_host)
    except OSError as error:
        raise ValueError(f"there is no way to {server}: {error}") from error
    except ValueError as error:
        raise ValueError(f"--peer-address {given.peer_address!r} is no IP address") from error
    server6 = None if given.server6 is None else parse_server(given.server6, given.transport)
    if server6 is not None and ":" not in server6.host:
        raise ValueError(f"--server6 {given.server6!r} is no IPv6 address")
    return Target(server, _users(given), peer_host, given.transport, given.realm, server6)


def _users(given: argparse.Namespace) -> Users:
    if (given.username is None) != (given.password is None):
        raise ValueError("--username and --password go together")
    if (given.other_username is None) != (given.other_password is None):
        raise ValueError("--other-username and --other-password go together")
    if given.secret is not None:
        if given.username is not None:
            raise ValueError("--secret and --username exclude each other")
        return rest_users(given.secret)
    if given.username is None:
        return Users()
    other = None if given.other_username is None else User(given.other_username, given.other_password)
    return static_users(User(given.username, given.password), other)


def _matches(requirement: Requirement, pattern: str) -> bool:
    return fnmatchcase(requirement.id, pattern) or fnmatchcase(requirement.level, pattern)
