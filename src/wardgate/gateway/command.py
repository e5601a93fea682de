"""`wardgate gateway`: its command line."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from wardgate.client.identity import GATEWAY_KEY, find_identity
from wardgate.errors import SettingError
from wardgate.gateway.config import DEFAULT_INTERFACE, DEFAULT_STATE_DIR, GatewaySettings
from wardgate.settings import (
    check_api_url,
    check_duration,
    check_interface,
    check_listen_address,
    env,
    fail,
    forget_token,
    host_name,
    one_of,
    parse_duration,
    parse_listen_address,
    read_config_file,
    read_token,
)

PROGRAM: Final = "wardgate gateway"
app = typer.Typer(add_completion=False)


@app.command()
def gateway(
    api_url: Annotated[
        str,
        typer.Option("--api-url", "-u", envvar=env("API_URL", "FIREZONE_API_URL"), help="The portal, as wss://host."),
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar=env("TOKEN_FILE", "FIREZONE_TOKEN_PATH"),
            help="A file with the token, readable by its owner alone; else WARDGATE_TOKEN or a systemd credential.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", "-n", envvar=env("NAME", "FIREZONE_NAME"), help="A name to show; else the host's."),
    ] = None,
    device_id: Annotated[
        str | None,
        typer.Option("--id", "-i", envvar=env("ID", "FIREZONE_ID"), help="The device id; else the machine's own."),
    ] = None,
    interface: Annotated[
        str,
        typer.Option(envvar=env("INTERFACE"), callback=check_interface, help="The TUN interface's name."),
    ] = DEFAULT_INTERFACE,
    state_dir: Annotated[
        Path, typer.Option(envvar=env("STATE_DIR"), help="Where the device id is kept if the machine has none.")
    ] = DEFAULT_STATE_DIR,
    max_partition_time: Annotated[
        str,
        typer.Option(
            "--max-partition-time",
            "-m",
            envvar=env("MAX_PARTITION_TIME", "FIREZONE_MAX_PARTITION_TIME"),
            callback=check_duration,
            help="How long the portal may be away before the gateway ends.",
        ),
    ] = "24h",
    health_check_addr: Annotated[
        str,
        typer.Option(
            envvar=env("HEALTH_CHECK_ADDR", "HEALTH_CHECK_ADDR"),
            callback=check_listen_address,
            help="Where /healthz, /readyz and /metrics are served; none for nowhere.",
        ),
    ] = "0.0.0.0:8080",
    masquerade: Annotated[
        bool,
        typer.Option(envvar=env("MASQUERADE"), help="Let the host forward, and clients leave with its addresses."),
    ] = True,
    offload: Annotated[
        bool, typer.Option(envvar=env("OFFLOAD"), help="Use segmentation offloads where they exist.")
    ] = True,
    portal_version: Annotated[
        str, typer.Option(envvar=env("PORTAL_VERSION"), callback=one_of("1", "2"), help="The portal's websocket paths.")
    ] = "2",
    check: Annotated[
        bool, typer.Option(envvar=env("CHECK"), help="Check that this process may do what it must, first.")
    ] = True,
    log_format: Annotated[
        str,
        typer.Option(
            envvar=env("LOG_FORMAT", "FIREZONE_LOG_FORMAT"), callback=one_of("human", "json"), help="human or json."
        ),
    ] = "human",
    log_level: Annotated[
        str,
        typer.Option(
            envvar=env("LOG"),
            callback=one_of("debug", "info", "warning", "error"),
            help="debug, info, warning or error.",
        ),
    ] = "info",
    config: Annotated[
        Path | None,
        typer.Option(
            envvar=env("CONFIG"),
            callback=read_config_file,
            is_eager=True,
            help="A TOML file with defaults for these options, named alike.",
        ),
    ] = None,
) -> None:
    """Run a gateway: the way for authorized clients into the networks that this host reaches.

    It joins the portal with its token, makes a TUN interface, lets the host forward and masquerade for clients, and
    serves until SIGTERM or SIGINT, on which it tells its clients goodbye and ends with status 0. Status 1 means that it
    had to end and says why, 2 that a setting is wrong. Needs CAP_NET_ADMIN.
    """
    from wardgate.logs import configure_logs

    configure_logs(log_format, log_level)
    try:
        settings = GatewaySettings(
            api_url=check_api_url(api_url, "gateway"),
            token=read_token(os.environ, token_file),
            id=find_identity(device_id, state_dir, GATEWAY_KEY).id,
            name=name or host_name(),
            interface=interface,
            max_partition_s=parse_duration(max_partition_time),
            health_address=parse_listen_address(health_check_addr),
            masquerade=masquerade,
            offload=offload,
            portal_version=int(portal_version),
        )
        forget_token(os.environ)
    except SettingError as error:
        fail(PROGRAM, str(error), 2)
    from wardgate.gateway.main import run

    reason = run(settings, check=check)
    if reason is not None:
        fail(PROGRAM, reason, 1)
