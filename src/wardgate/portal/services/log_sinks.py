"""Log sinks: made, changed, switched and deleted. Saving enables one that failed, the plain switch does not.

Source: portal-domain-3 B6 and B9.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from wardgate.errors import Conflict, Forbidden, InvalidInput, NotFound
from wardgate.portal.db.log_sinks import FEATURE
from wardgate.portal.db.log_tables import LogSink
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import new_id
from wardgate.portal.domain.checks import is_uuid
from wardgate.portal.domain.log_ids import STREAMS
from wardgate.portal.domain.sink_settings import PRODUCTS, check_settings, check_streams
from wardgate.portal.sinks.destinations import new_external_id, open_secrets, seal_secrets

BY_ADMIN: Final = "Disabled by admin"
_COMMON: Final = ("name", "enabled_streams", "retroactive")


async def list_sinks(scope: Scope) -> Sequence[LogSink]:
    """The account's sinks, the oldest first."""
    return await scope.all(scope.select(LogSink).order_by(LogSink.inserted_at, LogSink.id))


async def get_sink(scope: Scope, name_or_id: str) -> LogSink:
    """The sink with that id or name.

    Raises:
        NotFound: There is none.
        Conflict: Several have the name.
    """
    if is_uuid(name_or_id):
        return await scope.get(LogSink, name_or_id)
    found = await scope.all(scope.select(LogSink).where(LogSink.name == name_or_id))
    if not found:
        raise NotFound(f"the account has no log sink {name_or_id}")
    if len(found) > 1:
        raise Conflict(f"{len(found)} log sinks are called {name_or_id}: give the id")
    return found[0]


async def create_sink(
    unit: UnitOfWork, kind: str, given: Mapping[str, Any], *, may_be_private: bool = False
) -> LogSink:
    """Makes a sink, which is delivered to within a minute.

    Args:
        given: Name, streams, `retroactive`, and what its type has (`domain/sink_settings.py`).

    Raises:
        Forbidden: The account's plan has no log sinks.
        InvalidInput: Something of it is not acceptable.
    """
    await _need_feature(unit)
    if kind not in PRODUCTS:
        raise InvalidInput({"type": [f"must be one of {', '.join(PRODUCTS)}"]})
    columns, rest = _common({"name": PRODUCTS[kind], "enabled_streams": STREAMS, **given})
    checked = check_settings(kind, rest, may_be_private=may_be_private)
    _refuse(checked.errors)
    sink_id = new_id()
    settings = checked.settings | ({"external_id": new_external_id()} if kind == "s3" else {})
    row = LogSink(
        account_id=unit.account_id,
        id=sink_id,
        type=kind,
        settings=settings,
        credentials=seal_secrets(unit.keyring, sink_id, checked.secrets),
        **{"retroactive": False, **columns},
    )
    await unit.insert(row)
    return row


async def update_sink(
    unit: UnitOfWork, sink: LogSink, given: Mapping[str, Any], *, may_be_private: bool = False
) -> LogSink:
    """Changes a sink and enables it; a secret that is not given stays, and an empty text removes what is optional.

    Raises:
        Forbidden: The account's plan has no log sinks.
        InvalidInput: Something of it is not acceptable.
    """
    await _need_feature(unit)
    columns, rest = _common(given)
    known = open_secrets(unit.keyring, sink)
    removed = {name for name, value in rest.items() if value == ""}
    kept = {name: value for name, value in known.items() if name not in removed}
    settings = {name: value for name, value in sink.settings.items() if name != "external_id"}
    checked = check_settings(sink.type, settings | rest, frozenset(kept), may_be_private=may_be_private)
    _refuse(checked.errors)
    external = {name: value for name, value in sink.settings.items() if name == "external_id"}
    secrets = kept | checked.secrets
    if secrets != known:
        columns["credentials"] = seal_secrets(unit.keyring, sink.id, secrets)
    enabled: dict[str, Any] = {"is_disabled": False, "disabled_reason": None, "error_message": None, "errored_at": None}
    await unit.update(sink, settings=checked.settings | external, **columns, **enabled)
    return sink


async def enable_sink(unit: UnitOfWork, sink: LogSink) -> None:
    """Enables a sink that an admin has disabled.

    Raises:
        Forbidden: The account's plan has no log sinks.
        Conflict: It was disabled by errors: it must be edited and saved.
    """
    await _need_feature(unit)
    if sink.is_disabled and sink.error_message is not None:
        raise Conflict("the log sink was disabled by errors: edit it to enable it again")
    await unit.update(sink, is_disabled=False, disabled_reason=None)


async def disable_sink(unit: UnitOfWork, sink: LogSink) -> None:
    """Ends deliveries until the sink is enabled; they go on where they stopped."""
    if not sink.is_disabled:  # what errors have disabled stays so
        await unit.update(sink, is_disabled=True, disabled_reason=BY_ADMIN, error_message=None, errored_at=None)


async def delete_sink(unit: UnitOfWork, sink: LogSink) -> None:
    """Deletes a sink with its secrets and how far it got."""
    await unit.delete(sink)


async def _need_feature(unit: UnitOfWork) -> None:
    account = await unit.account()
    if not account.features.get(FEATURE):
        raise Forbidden("the account's plan has no log sinks")


def _common(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns that all sinks have, and the rest."""
    columns: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    rest = {name: value for name, value in given.items() if name not in _COMMON}
    if "name" in given:
        name = given["name"].strip() if isinstance(given["name"], str) else ""
        if not 1 <= len(name) <= 255 or not name.isprintable():
            errors["name"] = ["must be text of 1 to 255 character(s)"]
        columns["name"] = name
    if "enabled_streams" in given:
        columns["enabled_streams"] = check_streams(given["enabled_streams"])
        if columns["enabled_streams"] is None:
            errors["enabled_streams"] = [f"must be one or more of {', '.join(STREAMS)}"]
    if "retroactive" in given:
        columns["retroactive"] = given["retroactive"]
        if not isinstance(given["retroactive"], bool):
            errors["retroactive"] = ["must be true or false"]
    _refuse(errors)
    return columns, rest


def _refuse(errors: dict[str, list[str]]) -> None:
    if errors:
        raise InvalidInput(errors)
