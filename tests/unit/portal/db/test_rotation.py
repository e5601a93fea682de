"""A key that comes from a setting is replaced on either kind of database, and not under a portal that runs."""

import base64

import pytest

from tests.unit.portal.helpers import ManualClock, make_lab
from wardgate.errors import Conflict, SettingError
from wardgate.portal.db import sealing
from wardgate.portal.db.devices import create_device
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Device

NEW_KEY = base64.b64encode(bytes(range(32))).decode()


async def test_everything_opens_with_the_new_key_alone(db: Database, database_url: str, clock: ManualClock) -> None:
    lab = await make_lab(db)
    async with db.writing(lab.subject) as unit:
        device = await create_device(unit, type="gateway", site_id=lab.site.id, name="gw")
    psk = sealing.unseal(db.keyring, device, "psk_base")

    assert await db.reseal(NEW_KEY) == 3
    await db.close()
    opened = Database(database_url, clock, NEW_KEY)
    await opened.prepare()
    async with opened.scoped(lab.subject) as scope:
        assert sealing.unseal(opened.keyring, await scope.get(Device, device.id), "psk_base") == psk
    await opened.close()


async def test_the_old_key_is_refused_at_the_start(db: Database, database_url: str, clock: ManualClock) -> None:
    await db.reseal(NEW_KEY)
    await db.close()
    old = Database(database_url, clock, base64.b64encode(bytes(32)).decode())

    with pytest.raises(SettingError, match="not the key"):
        await old.prepare()
    await old.close()


async def test_a_portal_that_runs_keeps_its_key(db: Database, database_url: str, clock: ManualClock) -> None:
    await make_lab(db)
    other = Database(database_url, clock, NEW_KEY)
    async with db.unscoped() as session:
        await session.connection()
        with pytest.raises((Conflict, SettingError)) as caught:
            await other.reseal(NEW_KEY)
    await other.close()

    assert isinstance(caught.value, Conflict)
    await db.prepare()
