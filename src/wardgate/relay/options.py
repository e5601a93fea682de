"""The relay's command line: each option with its environment variables and what it accepts."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated

import typer

from wardgate.settings import check_duration, check_listen_address, env, one_of, read_config_file


def _both(name: str) -> list[str]:
    """A variable that Firezone's relay knows by the same name, without our prefix."""
    return env(name, name)


def _checked(parse: Callable[[str], object], accepted: str) -> Callable[[str | None], str | None]:
    """Gives a check of one option that says what is accepted, and its canonical text."""

    def check(text: str | None) -> str | None:
        try:
            return None if text is None else str(parse(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not {accepted}") from None

    return check


_IPV4 = _checked(IPv4Address, "an IPv4 address")
_IPV6 = _checked(IPv6Address, "an IPv6 address")

PublicIpv4 = Annotated[
    str | None,
    typer.Option(
        envvar=_both("PUBLIC_IP4_ADDR"),
        callback=_IPV4,
        help="The IPv4 address that clients and peers see.",
    ),
]
PublicIpv6 = Annotated[
    str | None, typer.Option(envvar=_both("PUBLIC_IP6_ADDR"), callback=_IPV6, help="The same for IPv6.")
]
BindIpv4 = Annotated[
    str, typer.Option(envvar=_both("BIND_IP4_ADDR"), callback=_IPV4, help="The address at which ports are opened.")
]
BindIpv6 = Annotated[str, typer.Option(envvar=_both("BIND_IP6_ADDR"), callback=_IPV6, help="The same for IPv6.")]
ListenPort = Annotated[
    int, typer.Option(envvar=_both("LISTEN_PORT"), min=1, max=65535, help="The UDP port of STUN and TURN.")
]
LowestPort = Annotated[
    int, typer.Option(envvar=_both("LOWEST_PORT"), min=1, max=65535, help="The lowest port of an allocation.")
]
HighestPort = Annotated[
    int, typer.Option(envvar=_both("HIGHEST_PORT"), min=1, max=65535, help="The highest port of an allocation.")
]
ApiUrl = Annotated[
    str,
    typer.Option(
        envvar=env("API_URL", "FIREZONE_API_URL"),
        help="The portal, as wss://host; without one the relay serves the users of --users-file or --auth-secret-file.",
    ),
]
UsersFile = Annotated[
    Path | None,
    typer.Option(
        envvar=env("USERS_FILE"),
        help="A file of users, a line NAME:PASSWORD for each, readable by its owner alone.",
    ),
]
AuthSecretFile = Annotated[
    Path | None,
    typer.Option(
        envvar=env("AUTH_SECRET_FILE"),
        help="A file with a secret that an application makes users with (TURN REST API, coturn's use-auth-secret).",
    ),
]
Realm = Annotated[str | None, typer.Option(envvar=env("REALM"), help="The realm of users; wardgate without a portal.")]
AllowPeers = Annotated[
    list[str],
    typer.Option(
        envvar=env("ALLOW_PEERS"),
        metavar="NETWORK",
        help="Relay to this network in spite of all rules, as 10.0.0.0/8; may be repeated.",
    ),
]
PrivatePeers = Annotated[
    bool | None,
    typer.Option(
        envvar=env("PRIVATE_PEERS"),
        help="Relay to private networks; without it, if a public address of this relay is private itself.",
    ),
]
MaxPerUser = Annotated[
    int, typer.Option(envvar=env("MAX_PER_USER"), min=1, help="The most allocations that one user may hold.")
]
MaxPerSource = Annotated[
    int,
    typer.Option(
        envvar=env("MAX_PER_SOURCE"),
        min=1,
        help="The most allocations of clients at one IPv4 address, or in one /64 of IPv6.",
    ),
]
DrainTime = Annotated[
    str,
    typer.Option(
        envvar=env("DRAIN_TIME"),
        callback=check_duration,
        help="How long allocations are served after the first SIGTERM or SIGINT, as 5s; a second one ends at once.",
    ),
]
TcpPort = Annotated[
    int | None, typer.Option(envvar=env("TCP_PORT"), min=1, max=65535, help="Serve TURN over TCP at this port as well.")
]
TlsPort = Annotated[
    int | None,
    typer.Option(envvar=env("TLS_PORT"), min=1, max=65535, help="Serve TURN over TLS at this port as well, as 443."),
]
TlsCert = Annotated[
    Path | None, typer.Option(envvar=env("TLS_CERT"), help="A PEM file with the certificate and its chain.")
]
TlsKey = Annotated[Path | None, typer.Option(envvar=env("TLS_KEY"), help="A PEM file with the key.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar=env("TOKEN_FILE"),
        help="A file with the token, readable by its owner alone; else WARDGATE_TOKEN or a systemd credential.",
    ),
]
Name = Annotated[str | None, typer.Option(envvar=env("NAME", "FIREZONE_NAME"), help="A name to show.")]
LogFormat = Annotated[
    str, typer.Option(envvar=_both("LOG_FORMAT"), callback=one_of("human", "json"), help="human or json.")
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar=env("LOG_LEVEL", "WARDGATE_LOG", "RUST_LOG"),
        callback=one_of("debug", "info", "warning", "error"),
        help="debug, info, warning or error.",
    ),
]
HealthAddress = Annotated[
    str,
    typer.Option(
        envvar=_both("HEALTH_CHECK_ADDR"),
        callback=check_listen_address,
        help="Where /healthz, /readyz and /metrics are served; none for nowhere.",
    ),
]
Native = Annotated[bool, typer.Option(envvar=env("NATIVE"), help="Forward in the native module rather than in Python.")]
Threads = Annotated[
    int | None,
    typer.Option(
        envvar=env("THREADS"), min=1, max=64, help="How many threads forward; without it one less than processors."
    ),
]
Segmentation = Annotated[
    bool, typer.Option(envvar=env("SEGMENTATION"), help="Use UDP GSO and GRO where the kernel has them.")
]
Xdp = Annotated[
    str | None,
    typer.Option(
        envvar=env("XDP", "EBPF_OFFLOADING"),
        help="The network interface at which the kernel forwards known channels by itself (XDP).",
    ),
]
XdpMode = Annotated[
    str,
    typer.Option(
        envvar=env("XDP_MODE", "EBPF_ATTACH_MODE"),
        callback=one_of("driver", "generic"),
        help="Where it does so: driver, or generic for drivers without XDP.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        envvar=env("CONFIG"),
        callback=read_config_file,
        is_eager=True,
        help="A TOML file with defaults for these options, named alike.",
    ),
]
