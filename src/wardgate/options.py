"""Command line options that several programs share: each with its environment variables and what it accepts."""

from pathlib import Path
from typing import Annotated

import typer

from wardgate.settings import (
    check_interface,
    check_listen_address,
    env,
    one_of,
    read_config_file,
)

ApiUrl = Annotated[
    str, typer.Option("--api-url", "-u", envvar=env("API_URL", "FIREZONE_API_URL"), help="The portal, as wss://host.")
]
Name = Annotated[
    str | None,
    typer.Option("--name", "-n", envvar=env("NAME", "FIREZONE_NAME"), help="A name to show; else the host's."),
]
DeviceId = Annotated[
    str | None,
    typer.Option("--id", "-i", envvar=env("ID", "FIREZONE_ID"), help="The device id; else the machine's own."),
]
Interface = Annotated[
    str, typer.Option(envvar=env("INTERFACE"), callback=check_interface, help="The TUN interface's name.")
]
StateDir = Annotated[Path, typer.Option(envvar=env("STATE_DIR"), help="Where is kept what must outlive the program.")]
HealthAddress = Annotated[
    str,
    typer.Option(
        envvar=env("HEALTH_CHECK_ADDR", "HEALTH_CHECK_ADDR"),
        callback=check_listen_address,
        help="Where /healthz, /readyz and /metrics are served; none for nowhere.",
    ),
]
Offload = Annotated[bool, typer.Option(envvar=env("OFFLOAD"), help="Use segmentation offloads where they exist.")]
Proxy = Annotated[
    str | None,
    typer.Option(
        envvar=env("PROXY"),
        help="The HTTP proxy to the portal and to relays by TCP, as http://host:port, or none; "
        "without it HTTPS_PROXY, ALL_PROXY and NO_PROXY say.",
    ),
]
PortalVersion = Annotated[
    str, typer.Option(envvar=env("PORTAL_VERSION"), callback=one_of("1", "2"), help="The portal's websocket paths.")
]
LogFormat = Annotated[
    str,
    typer.Option(
        envvar=env("LOG_FORMAT", "FIREZONE_LOG_FORMAT"), callback=one_of("human", "json"), help="human or json."
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(
        envvar=env("LOG"),
        callback=one_of("debug", "info", "warning", "error"),
        help="debug, info, warning or error.",
    ),
]
LogDir = Annotated[
    Path | None,
    typer.Option(
        "--log-dir", "-l", envvar=env("LOG_DIR", "LOG_DIR"), help="Where log files are written besides; else nowhere."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar=env("CONFIG"),
        callback=read_config_file,
        is_eager=True,
        help="A TOML file with defaults for these options, named alike.",
    ),
]
