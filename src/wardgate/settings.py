"""How settings are read: flags, then the environment, then a TOML file, then defaults; tokens never by flag.

Every mistake is a `SettingError` or a Typer `BadParameter` that names the setting and says what is accepted; programs
end with exit status 2 then.
"""

import contextlib
import os
import re
import socket
import stat
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NoReturn

import typer

from wardgate.errors import SettingError
from wardgate.proto.portal_login import Component, bearer, login_url
from wardgate.wire.addresses import SocketAddr

MAX_PRIVATE_BYTES: Final = 1 << 20


class EnvironmentNames(list[str]):
    """Names of one setting; error messages show them as they are typed, not as Python writes a list."""

    def __str__(self) -> str:
        return ", ".join(self)


def env(*names: str) -> list[str]:
    """The environment variables of a setting: ours first, then the name that Firezone's programs know it by."""
    return EnvironmentNames([f"WARDGATE_{names[0]}", *names[1:]])


def fail(program: str, text: str, status: int) -> NoReturn:
    """Ends a program with a line on stderr, after what it logged."""
    from wardgate.io.log_sink import drain

    drain()
    print(f"{program}: {text}", file=sys.stderr)
    raise typer.Exit(status)


def read_config_file(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the values of a TOML file the defaults of the other options; an eager Typer callback."""
    if path is None:
        return None
    try:
        values = {key.replace("-", "_"): value for key, value in tomllib.loads(path.read_text()).items()}
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise typer.BadParameter(f"{path} is no TOML file: {error}") from None
    known = sorted(parameter.name for parameter in context.command.params if parameter.name)
    unknown = sorted(set(values) - set(known))
    if unknown:
        accepted = ", ".join(name.replace("_", "-") for name in known)
        raise typer.BadParameter(f"{path} holds {', '.join(unknown)}; accepted are {accepted}")
    context.default_map = values
    return path


def one_of(*accepted: str) -> Callable[[str | None], str | None]:
    """Checks an option that knows a few words."""

    def check(text: str | None) -> str | None:
        if text is None or text.lower() in accepted:
            return None if text is None else text.lower()
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(accepted)}")

    return check


_DURATION: Final = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|sec|s|min|m|hours?|hr|h|days?|d)?\s*")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """Reads `90`, `90s`, `1h 30m`, `2 days` as seconds.

    Raises:
        ValueError: It is none of these.
    """
    seconds, position = 0.0, 0
    while position < len(text):
        part = _DURATION.match(text, position)
        if part is None:
            raise ValueError(f"{text!r} is no duration")
        unit = part[2] or "s"
        seconds += float(part[1]) * _UNITS["ms" if unit == "ms" else unit[0]]
        position = part.end()
    if not text.strip():
        raise ValueError("an empty duration")
    return seconds


def check_duration(text: str | None) -> str | None:
    """Checks an option that is a duration."""
    if text is not None:
        try:
            parse_duration(text)
        except ValueError as error:
            raise typer.BadParameter(f"{error}; accepted are durations such as 90s, 15m, 24h or 30d") from None
    return text


def check_interface(text: str) -> str:
    """Checks the name of a network interface."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,15}", text) or text in (".", ".."):
        raise typer.BadParameter(f"{text!r} is no interface name: 1 to 15 letters, digits, dots, dashes")
    return text


def check_listen_address(text: str) -> str:
    """Checks an option that is `<address>:<port>` or `none`."""
    parse_listen_address(text)
    return text


def parse_listen_address(text: str) -> SocketAddr | None:
    """Reads `<address>:<port>`, or `none`.

    Raises:
        BadParameter: It is neither.
    """
    with contextlib.suppress(ValueError):
        return None if text == "none" else SocketAddr.parse(text)
    raise typer.BadParameter(f"{text!r} is neither <address>:<port> nor none")


def check_api_url(text: str, component: Component) -> str:
    """Checks the portal's URL.

    Raises:
        SettingError: It is missing or none.
    """
    if not text:
        raise SettingError(
            "--api-url (WARDGATE_API_URL) is missing: the portal's address, such as wss://portal.example"
        )
    try:
        login_url(text, component, [])
    except ValueError as error:
        raise SettingError(f"--api-url (WARDGATE_API_URL): {error}") from None
    return text


def read_token(
    environ: Mapping[str, str], file: Path | None, *, default_file: Path | None = None, remedy: str = ""
) -> str:
    """A component's token: `WARDGATE_TOKEN`, else `FIREZONE_TOKEN`, else a file, else a systemd credential.

    Args:
        environ: The environment.
        file: The file that was asked for.
        default_file: Where to look if none was.
        remedy: What to do if there is no token at all.

    Raises:
        SettingError: There is none, or its file is readable by others.
    """
    text = environ.get("WARDGATE_TOKEN") or environ.get("FIREZONE_TOKEN")
    if text is None and file is not None:
        text = _read_private(file, must_exist=True)
    if text is None:
        text = _read_credential(environ)
    if text is None and default_file is not None:
        text = _read_private(default_file, must_exist=False)
    if text is None:
        raise SettingError(
            "the token is missing: set WARDGATE_TOKEN in the environment, --token-file (WARDGATE_TOKEN_FILE) or the "
            f"systemd credential WARDGATE_TOKEN{remedy}"
        )
    try:
        bearer(text)
    except ValueError as error:
        raise SettingError(f"WARDGATE_TOKEN: {error}") from None
    return "".join(text.split())


def host_name() -> str:
    """The host's name, without its domain."""
    return socket.gethostname().partition(".")[0] or "unnamed"


def forget_token(environ: "os._Environ[str]") -> None:
    """Takes the token out of the environment, so that no child process gets it."""
    for name in ("WARDGATE_TOKEN", "FIREZONE_TOKEN"):
        environ.pop(name, None)


def _read_credential(environ: Mapping[str, str]) -> str | None:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    for name in ("WARDGATE_TOKEN", "FIREZONE_TOKEN"):
        if directory and (path := Path(directory, name)).is_file():
            return path.read_text()
    return None


def read_private(path: Path, option: str) -> str:
    """The text of a file that nobody else may read.

    Raises:
        SettingError: It is not there, readable by others, or no text.
    """
    text = _read_private(path, must_exist=True, option=option)
    assert text is not None
    return text


def _read_private(path: Path, *, must_exist: bool, option: str = "--token-file") -> str | None:
    """A file that nobody else may read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o177:
                raise SettingError(
                    f"{option} {path} may be read by others: it must be owned by root or this user, with mode 0600 "
                    f"or 0400 (now {stat.S_IMODE(status.st_mode):04o}). Fix it with: chmod 600 {path}"
                )
            return file.read(MAX_PRIVATE_BYTES).decode()
    except FileNotFoundError:
        if not must_exist:
            return None
        raise SettingError(f"{option} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{option} {path} cannot be read: {error}") from None
