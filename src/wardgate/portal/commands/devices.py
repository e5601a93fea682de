"""`wardgate portal readdress`: other tunnel addresses for a device."""

import json
from typing import Annotated, Any

import typer

from wardgate.portal.commands.base import DatabaseOption, JsonOption, reported, run_on, system_of
from wardgate.portal.db.engine import Database
from wardgate.portal.services import devices


def readdress(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's slug or id.")],
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="The id of a client or gateway.")],
    ipv4: Annotated[str | None, typer.Option("--ipv4", help="An address of 100.64.0.0/11.")] = None,
    ipv6: Annotated[str | None, typer.Option("--ipv6", help="An address of fd00:2021:1111::/107.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a client or gateway other tunnel addresses; what it may reach now has to be asked for again."""
    given = {name: value for name, value in (("ipv4", ipv4), ("ipv6", ipv6)) if value is not None}
    with reported():
        row = run_on(database, lambda db: _readdress(db, account, device, given))
    print(json.dumps(row) if as_json else f"wardgate portal: {row['name']} has {row['ipv4']} and {row['ipv6']}")


async def _readdress(db: Database, account: str, device_id: str, given: dict[str, str]) -> dict[str, Any]:
    async with db.writing(await system_of(db, account)) as unit:
        device = await devices.change_addresses(unit, device_id, given)
        return {name: getattr(device, name) for name in ("id", "name", "ipv4", "ipv6")}
