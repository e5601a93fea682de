"""`wardgate client`: its command line."""

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

import typer

from wardgate import options
from wardgate.client.config import (
    DEFAULT_INTERFACE,
    DEFAULT_SOCKET,
    DEFAULT_STATE_DIR,
    DEFAULT_TOKEN_FILE,
    ClientSettings,
    DnsMethod,
)
from wardgate.client.identity import CLIENT_KEY, find_identity
from wardgate.errors import SettingError, WardgateError
from wardgate.proto.http_proxy import Proxies
from wardgate.proto.portal_login import bearer
from wardgate.settings import (
    check_api_url,
    check_duration,
    env,
    fail,
    forget_token,
    host_name,
    one_of,
    parse_duration,
    parse_listen_address,
    read_token,
)

PROGRAM: Final = "wardgate client"
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Reach private applications from this computer: run the client, and talk to the one that runs.",
)

TokenFile = Annotated[
    Path,
    typer.Option(
        envvar=env("TOKEN_FILE", "FIREZONE_TOKEN_PATH"),
        help="Where the token is, readable by its owner alone; WARDGATE_TOKEN wins over it.",
    ),
]
Socket = Annotated[Path, typer.Option(envvar=env("CLIENT_SOCKET"), help="Where the running client is reached.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


DnsControl = Annotated[
    str,
    typer.Option(
        envvar=env("DNS_CONTROL", "FIREZONE_DNS_CONTROL"),
        callback=one_of("auto", "systemd-resolved", "etc-resolv-conf", "disabled"),
        help="How the host asks the client's resolver: auto, systemd-resolved, etc-resolv-conf or disabled.",
    ),
]
InternetResource = Annotated[
    bool,
    typer.Option(
        envvar=env("INTERNET_RESOURCE", "FIREZONE_ACTIVATE_INTERNET_RESOURCE"),
        help="Send everything else through the Internet resource, if there is one.",
    ),
]
MaxPartitionTime = Annotated[
    str | None,
    typer.Option(
        "--max-partition-time",
        "-m",
        envvar=env("MAX_PARTITION_TIME", "MAX_PARTITION_TIME"),
        callback=check_duration,
        help="How long the portal may be away before the client ends; else as long as it takes.",
    ),
]
ExitWhenReady = Annotated[
    bool, typer.Option("--exit", help="End with status 0 once the interface is configured: a test of the connection.")
]
Check = Annotated[bool, typer.Option("--check", help="Check the settings, take back what a killed run left, end.")]


@app.command()
def up(
    api_url: options.ApiUrl = "",
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
    name: options.Name = None,
    device_id: options.DeviceId = None,
    dns_control: DnsControl = "auto",
    internet_resource: InternetResource = False,
    interface: options.Interface = DEFAULT_INTERFACE,
    state_dir: options.StateDir = DEFAULT_STATE_DIR,
    socket: Socket = DEFAULT_SOCKET,
    max_partition_time: MaxPartitionTime = None,
    health_check_addr: options.HealthAddress = "none",
    offload: options.Offload = True,
    proxy: options.Proxy = None,
    portal_version: options.PortalVersion = "2",
    exit_when_ready: ExitWhenReady = False,
    check: Check = False,
    log_format: options.LogFormat = "human",
    log_level: options.LogLevel = "info",
    log_dir: options.LogDir = None,
    config: options.ConfigFile = None,
) -> None:
    """Run the client until SIGTERM, SIGINT or `wardgate client down`.

    It joins the portal with its token, makes a TUN interface and routes the resources that this user may reach through
    it. SIGHUP makes it look for new paths. On the end it takes back all that it did to the host and ends with status 0;
    status 1 means that it had to end and says why, 2 that a setting is wrong. Needs CAP_NET_ADMIN.
    """
    from wardgate.logs import configure_logs

    try:
        configure_logs(log_format, log_level, log_dir, "wardgate-client")
        settings = ClientSettings(
            api_url=check_api_url(api_url, "client"),
            token=read_token(os.environ, None, default_file=token_file, remedy=f", or run: {PROGRAM} sign-in"),
            id=find_identity(device_id, state_dir, CLIENT_KEY).id,
            name=name or host_name(),
            state_dir=state_dir,
            socket=socket,
            interface=interface,
            dns_method=cast(DnsMethod, dns_control),
            is_internet_active=internet_resource,
            max_partition_s=None if max_partition_time is None else parse_duration(max_partition_time),
            health_address=parse_listen_address(health_check_addr),
            offload=offload,
            exit_when_ready=exit_when_ready,
            proxies=Proxies(proxy, os.environ),
            portal_version=int(portal_version),
        )
        forget_token(os.environ)
    except SettingError as error:
        fail(PROGRAM, str(error), 2)
    from wardgate.client import main

    if check:
        if not main.is_running(socket):
            _clean_up(state_dir, socket)
        return
    reason = main.run(settings)
    if reason is not None:
        fail(PROGRAM, reason, 1)


@app.command()
def down(socket: Socket = DEFAULT_SOCKET) -> None:
    """End the running client; its tunnels are closed and the host is as before."""
    _ask(socket, {"command": "down"}, f"; `{PROGRAM} clean-up` takes back what a killed one left")


@app.command("clean-up")
def clean_up(state_dir: options.StateDir = DEFAULT_STATE_DIR, socket: Socket = DEFAULT_SOCKET) -> None:
    """Take back what a killed client left on this host when none is to run again: its names, its routes and rules."""
    _clean_up(state_dir, socket)


@app.command()
def status(socket: Socket = DEFAULT_SOCKET, as_json: AsJson = False) -> None:
    """Show what the running client reaches: each resource, its path, round-trip time, bytes and last handshake.

    Status 1 means that no client is running here, or that it may not be asked.
    """
    answer = _ask(socket, {"command": "status"})
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    from wardgate.client.status import render

    print("\n".join(render(answer)))


@app.command()
def reset(socket: Socket = DEFAULT_SOCKET) -> None:
    """Make the running client look for new paths, as after a change of networks."""
    _ask(socket, {"command": "reset"})


@app.command("internet-resource")
def internet_resource(
    active: Annotated[bool, typer.Argument(help="Whether it is used: true or false.")], socket: Socket = DEFAULT_SOCKET
) -> None:
    """Turn the Internet resource on or off in the running client."""
    _ask(socket, {"command": "internet", "active": active})


@app.command("sign-in")
def sign_in(
    auth_base_url: Annotated[
        str,
        typer.Option(
            envvar=env("AUTH_BASE_URL", "FIREZONE_AUTH_BASE_URL"), help="The portal's pages, as https://host."
        ),
    ] = "",
    account_slug: Annotated[
        str, typer.Option(envvar=env("ACCOUNT_SLUG", "FIREZONE_ACCOUNT_SLUG"), help="The account's short name.")
    ] = "",
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
) -> None:
    """Sign in with a browser, and keep the token that it shows.

    Prints a page to open; the token that the page shows is pasted here, unseen, or piped in.
    """
    parts = urlsplit(auth_base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        fail(PROGRAM, "--auth-base-url (WARDGATE_AUTH_BASE_URL) is missing or no https:// address", 2)
    path = f"{parts.path.rstrip('/')}/{account_slug}".rstrip("/")
    page = urlunsplit((parts.scheme, parts.netloc, path, urlencode({"as": "headless-client"}), ""))
    print(f"Open this page and sign in:\n\n    {page}\n", file=sys.stderr)
    token = getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.read()
    try:
        bearer(token)
        _write_private(token_file, "".join(token.split()))
    except ValueError as error:
        fail(PROGRAM, str(error), 1)
    except OSError as error:
        fail(PROGRAM, f"--token-file {token_file} cannot be written: {error.strerror}", 1)
    print(f"Signed in; the token is in {token_file}.")


@app.command("sign-out")
def sign_out(
    token_file: TokenFile = DEFAULT_TOKEN_FILE,
    force: Annotated[bool, typer.Option("--force", "-f", help="Do not ask.")] = False,
) -> None:
    """Forget the token; a client that runs keeps its session until it ends."""
    if not token_file.exists():
        print("Signed out already.")
        return
    if not force and not typer.confirm(f"Remove {token_file}?"):
        raise typer.Exit(1)
    try:
        token_file.unlink(missing_ok=True)
    except OSError as error:
        fail(PROGRAM, f"{token_file} cannot be removed: {error.strerror}", 1)
    print("Signed out.")


def _clean_up(state_dir: Path, socket: Path) -> None:
    from wardgate.client import main

    try:
        main.clean_up(state_dir, socket)
    except (WardgateError, OSError) as error:
        fail(PROGRAM, str(error), 1)


def _ask(socket: Path, request: dict[str, Any], hint: str = "") -> dict[str, Any]:
    from wardgate.io.control_socket import ask

    try:
        return ask(socket, request)
    except WardgateError as error:
        fail(PROGRAM, f"{error}{hint}", 1)


def _write_private(path: Path, text: str) -> None:
    """Puts a file there that only its owner ever could read."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
    os.replace(temporary, path)
