"""`wardgate gateway`: its command line."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from wardgate import options
from wardgate.client.identity import GATEWAY_KEY, find_identity
from wardgate.errors import SettingError
from wardgate.gateway.config import DEFAULT_INTERFACE, DEFAULT_STATE_DIR, GatewaySettings
from wardgate.proto.http_proxy import Proxies
from wardgate.settings import (
    check_api_url,
    check_duration,
    env,
    fail,
    forget_token,
    host_name,
    parse_duration,
    parse_listen_address,
    read_token,
)

PROGRAM: Final = "wardgate gateway"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar=env("TOKEN_FILE", "FIREZONE_TOKEN_PATH"),
        help="A file with the token, readable by its owner alone; else WARDGATE_TOKEN or a systemd credential.",
    ),
]
MaxPartitionTime = Annotated[
    str,
    typer.Option(
        "--max-partition-time",
        "-m",
        envvar=env("MAX_PARTITION_TIME", "FIREZONE_MAX_PARTITION_TIME"),
        callback=check_duration,
        help="How long the portal may be away before the gateway ends.",
    ),
]
Masquerade = Annotated[
    bool, typer.Option(envvar=env("MASQUERADE"), help="Let the host forward, and clients leave with its addresses.")
]
Check = Annotated[bool, typer.Option(envvar=env("CHECK"), help="Check first that this process may do what it must.")]


@app.command()
def gateway(
    api_url: options.ApiUrl = "",
    token_file: TokenFile = None,
    name: options.Name = None,
    device_id: options.DeviceId = None,
    interface: options.Interface = DEFAULT_INTERFACE,
    state_dir: options.StateDir = DEFAULT_STATE_DIR,
    max_partition_time: MaxPartitionTime = "24h",
    health_check_addr: options.HealthAddress = "0.0.0.0:8080",
    masquerade: Masquerade = True,
    offload: options.Offload = True,
    proxy: options.Proxy = None,
    portal_version: options.PortalVersion = "2",
    check: Check = True,
    log_format: options.LogFormat = "human",
    log_level: options.LogLevel = "info",
    log_dir: options.LogDir = None,
    config: options.ConfigFile = None,
) -> None:
    """Run a gateway: the way for authorized clients into the networks that this host reaches.

    It joins the portal with its token, makes a TUN interface, lets the host forward and masquerade for clients, and
    serves until SIGTERM or SIGINT, on which it tells its clients goodbye and ends with status 0. Status 1 means that it
    had to end and says why, 2 that a setting is wrong. Needs CAP_NET_ADMIN.
    """
    from wardgate.logs import configure_logs

    try:
        configure_logs(log_format, log_level, log_dir, "wardgate-gateway")
        settings = GatewaySettings(
            api_url=check_api_url(api_url, "gateway"),
            token=read_token(os.environ, token_file),
            id=find_identity(device_id, state_dir, GATEWAY_KEY).id,
            name=name or host_name(),
            state_dir=state_dir,
            interface=interface,
            max_partition_s=parse_duration(max_partition_time),
            health_address=parse_listen_address(health_check_addr),
            masquerade=masquerade,
            offload=offload,
            proxies=Proxies(proxy, os.environ),
            portal_version=int(portal_version),
        )
        forget_token(os.environ)
    except SettingError as error:
        fail(PROGRAM, str(error), 2)
    from wardgate.gateway.main import run

    reason = run(settings, check=check)
    if reason is not None:
        fail(PROGRAM, reason, 1)
