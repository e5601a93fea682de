"""The relay's command line: each option with its environment variables and what it accepts."""

import tomllib
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated

import typer


def _env(name: str) -> list[str]:
    return [f"WARDGATE_{name}", name]


def _checked(parse: Callable[[str], object], accepted: str) -> Callable[[str | None], str | None]:
    """Gives a check of one option that says what is accepted, and its canonical text."""

    def check(text: str | None) -> str | None:
        try:
            return None if text is None else str(parse(text))
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not {accepted}") from None

    return check


def _one_of(*accepted: str) -> Callable[[str | None], str | None]:
    return _checked(lambda text: accepted[accepted.index(text.lower())], " or ".join(accepted))


def _read_config(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the values of a TOML file the defaults of the other options."""
    if path is None:
        return None
    try:
        values = {key.replace("-", "_"): value for key, value in tomllib.loads(path.read_text()).items()}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from None
    known = sorted(parameter.name for parameter in context.command.params if parameter.name)
    unknown = sorted(set(values) - set(known))
    if unknown:
        accepted = ", ".join(name.replace("_", "-") for name in known)
        raise typer.BadParameter(f"{path} holds {', '.join(unknown)}; accepted are {accepted}")
    context.default_map = values
    return path


_IPV4 = _checked(IPv4Address, "an IPv4 address")
_IPV6 = _checked(IPv6Address, "an IPv6 address")

PublicIpv4 = Annotated[
    str | None,
    typer.Option(
        envvar=_env("PUBLIC_IP4_ADDR"),
        callback=_IPV4,
        help="The IPv4 address that clients and peers see.",
    ),
]
PublicIpv6 = Annotated[
    str | None, typer.Option(envvar=_env("PUBLIC_IP6_ADDR"), callback=_IPV6, help="The same for IPv6.")
]
BindIpv4 = Annotated[
    str, typer.Option(envvar=_env("BIND_IP4_ADDR"), callback=_IPV4, help="The address at which ports are opened.")
]
BindIpv6 = Annotated[str, typer.Option(envvar=_env("BIND_IP6_ADDR"), callback=_IPV6, help="The same for IPv6.")]
ListenPort = Annotated[
    int, typer.Option(envvar=_env("LISTEN_PORT"), min=1, max=65535, help="The UDP port of STUN and TURN.")
]
LowestPort = Annotated[
    int, typer.Option(envvar=_env("LOWEST_PORT"), min=1, max=65535, help="The lowest port of an allocation.")
]
HighestPort = Annotated[
    int, typer.Option(envvar=_env("HIGHEST_PORT"), min=1, max=65535, help="The highest port of an allocation.")
]
ApiUrl = Annotated[
    str, typer.Option(envvar=["WARDGATE_API_URL", "FIREZONE_API_URL"], help="The portal, as wss://host.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar="WARDGATE_TOKEN_FILE",
        help="A file with the relay's token; else it is taken from WARDGATE_TOKEN or FIREZONE_TOKEN.",
    ),
]
Name = Annotated[str | None, typer.Option(envvar=["WARDGATE_NAME", "FIREZONE_NAME"], help="A name to show.")]
LogFormat = Annotated[
    str, typer.Option(envvar=_env("LOG_FORMAT"), callback=_one_of("human", "json"), help="human or json.")
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar=["WARDGATE_LOG", "RUST_LOG"],
        callback=_one_of("debug", "info", "warning", "error"),
        help="debug, info, warning or error.",
    ),
]
HealthAddress = Annotated[
    str,
    typer.Option(
        envvar=_env("HEALTH_CHECK_ADDR"), help="Where /healthz, /readyz and /metrics are served; none for nowhere."
    ),
]
Native = Annotated[
    bool, typer.Option(envvar="WARDGATE_NATIVE", help="Forward in the native module rather than in Python.")
]
Segmentation = Annotated[
    bool, typer.Option(envvar="WARDGATE_SEGMENTATION", help="Use UDP GSO and GRO where the kernel has them.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        envvar="WARDGATE_CONFIG",
        callback=_read_config,
        is_eager=True,
        help="A TOML file with defaults for these options, named alike.",
    ),
]
