"""Two real clients, each behind its own NAT, that reach each other through a device pool."""

import asyncio
from pathlib import Path

import pytest

from wardgate.lab import topologies
from wardgate.lab.demo import steps
from wardgate.lab.demo.__main__ import playing
from wardgate.lab.demo.cast import Cast
from wardgate.lab.demo.story import Story
from wardgate.lab.topology import NatKind
from wardgate.portal.clock import SystemClock
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Account, Device, Group
from wardgate.portal.domain import subjects
from wardgate.portal.services import policies, resources

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]


@pytest.mark.parametrize("iceless", [True, False])
def test_one_client_reaches_another_through_a_pool(tmp_path: Path, *, iceless: bool) -> None:
    story = Story()
    nat = NatKind.PORT_RESTRICTED
    with playing(story, tmp_path, topologies.demo(nat, nat)) as cast:
        steps.portal_starts(story, cast)
        steps.operator(cast, "features", "--account", "corp", "--enable" if iceless else "--disable", "iceless")
        cast.start_relay()
        printer_joins(cast)
        cast.processes.pop("portal").stop()
        address = asyncio.run(make_pool(cast.database))
        cast.start_portal()
        printer = cast.processes["gateway-2"]
        cast.wait(lambda: printer.log(100).count("portal joined") == 2, 20.0, "the printer joins again", printer)
        cast.start_client()
        cast.wait(lambda: cast.resource("Printers"), 20.0, "the client knows the pool", cast.processes["client"])

        cast.wait(
            lambda: answers(cast, address), 20.0, "the printer answers", cast.processes["client"]
        )  # relays are back
        done = cast.lab.node("client").run(["ping", "-c", "3", "-i", "0.2", "-W", "5", address], timeout_s=20.0)
        back = cast.lab.node("gateway-2").run(["ping", "-c", "1", "-W", "1", client_address(cast)], timeout_s=20.0)
        (device,) = cast.status()["devices"]

    assert " 3 received" in done.stdout
    assert back.returncode != 0
    assert device["path"]["kind"] == "direct"
    assert device["path"]["mode"] == ("iceless" if iceless else "ice")


def answers(cast: Cast, address: str) -> bool:
    return cast.lab.node("client").run(["ping", "-c", "1", "-W", "2", address], timeout_s=10.0).returncode == 0


def printer_joins(cast: Cast) -> None:
    """A second client of the same person, on another host, behind another NAT."""
    identity = {"WARDGATE_NAME": "printer", "WARDGATE_ID": "printer", "WARDGATE_DNS_CONTROL": "disabled"}
    process = cast.start_member("client", "gateway-2", "client", "up", env=identity)
    cast.wait(lambda: "interface ready" in process.log(), 20.0, "the printer joins", process)


def client_address(cast: Cast) -> str:
    return str(cast.status()["ipv4"])


async def make_pool(path: Path) -> str:
    """Makes a pool with the printer in it, as an admin's page would; gives the printer's address."""
    db = Database(f"sqlite:///{path}", SystemClock())
    try:
        async with db.unscoped() as session:
            account = (await session.execute(Account.__table__.select().where(Account.slug == "corp"))).first()
        assert account is not None
        async with db.writing(subjects.system(account.id)) as unit:
            (printer,) = await unit.all(unit.select(Device).where(Device.firezone_id == "printer"))
            (group,) = await unit.all(unit.select(Group).where(Group.name == "engineering"))
            pool = await resources.create_resource(
                unit, {"name": "Printers", "type": "static_device_pool"}, ("static_device_pool",)
            )
            await resources.set_pool_members(unit, pool.id, [printer.id])
            await policies.create_policy(unit, {"group_id": group.id, "resource_id": pool.id})
            return str(printer.ipv4)
    finally:
        await db.close()
