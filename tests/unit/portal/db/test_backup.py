"""A backup of either database can be restored into either, and nothing else can."""

import gzip
import json
import stat
import subprocess
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, text

from tests.postgres import Server
from tests.unit.portal.filling import fill
from tests.unit.portal.helpers import SECRET_KEY, Lab, ManualClock, make_lab
from wardgate.errors import Conflict, DatabaseUnavailable, InvalidBackup, SettingError
from wardgate.portal.db import migrate
from wardgate.portal.db.backup import TRANSIENT, backup, checksums, restore
from wardgate.portal.db.backup_file import Adder, TableSum, read_header, verify
from wardgate.portal.db.engine import Database
from wardgate.portal.db.tables import Account, Actor, Base, Group, Membership, new_id
from wardgate.portal.services import groups

OTHER_KEY = "b3RoZXIgc2VjcmV0IGtleSBvZiB0aGUgdGVzdHMgISE="


@pytest.fixture(params=["to-sqlite", "to-postgresql"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any tables."""
    if request.param == "to-sqlite":
        return f"sqlite:///{tmp_path / 'restored.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def postgresql_url(postgresql: Server) -> Iterator[str]:
    name = postgresql.create_database("template0")
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture
async def filled(db: Database) -> Database:
    await make_lab(db)
    await db.transact(lambda connection: fill(connection, db.keyring))
    return db


async def test_a_backup_of_every_table_is_restored_into_either_database(
    filled: Database, target_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "backup"

    written = await backup(filled, file)
    async with opened(target_url) as target:
        restored = await restore(target, file)

        kept = {table.name for table in Base.metadata.sorted_tables} - TRANSIENT
        assert restored.keys() == kept
        assert all(total.rows for total in restored.values())
        assert restored == written == await checksums(filled) == await checksums(target)
        await target.prepare()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert names_in(tmp_path, ".*.part") == []


async def test_a_restored_portal_finds_its_people_and_opens_its_secrets(
    db: Database, target_url: str, tmp_path: Path
) -> None:
    lab = await make_lab(db)
    await backup(db, tmp_path / "backup")

    async with opened(target_url) as target:
        await restore(target, tmp_path / "backup")
        async with target.writing(lab.subject) as unit:
            assert (await unit.get(Actor, lab.actor.id)).email == "mia@corp.example"
            await groups.create_group(unit, {"name": "Support"})
        assert await target.transact(target.keys.check)


async def test_a_backup_is_of_one_moment(db: Database, tmp_path: Path) -> None:
    lab = await make_lab(db)

    def change_meanwhile(connection: Connection) -> int:
        """Reads twice, with a commit of somebody else between."""
        before = connection.scalar(text("SELECT count(*) FROM groups"))
        other.run(lab)
        assert connection.scalar(text("SELECT count(*) FROM groups")) == before
        return int(before or 0)

    other = Elsewhere(db)
    before = await db.snapshot(change_meanwhile)

    async with db.scoped(lab.subject) as scope:
        assert len(await scope.all(scope.select(Group))) == before + 1


class Elsewhere:
    """Adds a group while a snapshot is being read."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def run(self, lab: Lab) -> None:
        from sqlalchemy.util import await_only

        await_only(self._add(lab))

    async def _add(self, lab: Lab) -> None:
        async with self._db.writing(lab.subject) as unit:
            await groups.create_group(unit, {"name": "Meanwhile"})


async def test_a_database_that_is_not_empty_is_left(filled: Database, tmp_path: Path) -> None:
    await backup(filled, tmp_path / "backup")
    before = await checksums(filled)

    with pytest.raises(Conflict, match="not empty"):
        await restore(filled, tmp_path / "backup")

    assert await checksums(filled) == before


async def test_a_migrated_database_without_rows_is_empty(db: Database, target_url: str, tmp_path: Path) -> None:
    await make_lab(db)
    written = await backup(db, tmp_path / "backup")

    async with opened(target_url) as target:
        await target.migrate()

        assert await restore(target, tmp_path / "backup") == written


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: content[: len(content) // 2], "cut off|damaged"),
        (lambda content: content[:-20], "cut off|damaged"),
        (lambda content: b"", "is empty"),
        (lambda content: b"PGDMP" + bytes(100), "no backup"),
        (lambda content: gzip.compress(b'{"kind":"other"}\n'), "no backup"),
        (lambda content: changed(content, b'"Engineering"', b'"Engineerink"'), "damaged"),
        (lambda content: changed(content, b'"complete":true', b'"complete":true,"x":1') + gzip.compress(b"[]\n"), "on"),
        (lambda content: without_line(content, b'"Engineering"'), "damaged"),
        (lambda content: without_line(content, b'"complete"'), "cut off"),
        (lambda content: changed(content, b'"format":1', b'"format":2'), "format 2"),
    ],
)
async def test_a_damaged_file_is_refused_and_leaves_no_database(
    sqlite_db: Database, target_url: str, tmp_path: Path, damage: Callable[[bytes], bytes], said: str
) -> None:
    await make_lab(sqlite_db)
    file = tmp_path / "backup"
    await backup(sqlite_db, file)
    file.write_bytes(damage(file.read_bytes()))

    async with opened(target_url) as target:
        with pytest.raises(InvalidBackup, match=said):
            await restore(target, file)
        await is_untouched(target)


async def test_a_backup_of_a_newer_version_is_refused(sqlite_db: Database, target_url: str, tmp_path: Path) -> None:
    await make_lab(sqlite_db)
    file = tmp_path / "backup"
    await backup(sqlite_db, file)
    revision = migrate.revisions()[0]
    file.write_bytes(changed(file.read_bytes(), f'"revision":"{revision}"'.encode(), b'"revision":"9999"'))

    async with opened(target_url) as target:
        with pytest.raises(InvalidBackup, match="newer version"):
            await restore(target, file)
        await is_untouched(target)


async def test_a_backup_of_an_older_version_is_brought_to_this_one(
    db: Database, target_url: str, tmp_path: Path
) -> None:
    lab = await make_lab(db)
    file = tmp_path / "backup"
    await backup(db, file)
    first = migrate.revisions()[-1]
    older = OlderBackup(file)
    await db.migrate(first)
    await db.snapshot(lambda connection: older.write(connection, first))

    async with opened(target_url) as target:
        await restore(target, file)
        async with target.scoped(lab.subject) as scope:
            assert (await scope.get(Group, lab.group.id)).name == "Engineering"
        assert await target.transact(migrate.is_current)


class OlderBackup:
    """The same file as an older version would have written it: with the tables and columns that it knew."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = {
            value["table"]: dict(value["columns"])
            for line in gzip.decompress(file.read_bytes()).splitlines()
            if isinstance(value := json.loads(line), dict) and "table" in value
        }

    def write(self, connection: Connection, revision: str) -> None:
        from sqlalchemy import column, inspect, select, table

        from wardgate.portal.db.backup import _TYPES
        from wardgate.portal.db.backup_file import Header, Writer

        there = inspect(connection)
        with self._file.open("wb") as file:
            writer = Writer(file, Header("0.1", revision, "2026-01-01T00:00:00+00:00", "sqlite"))
            for name in self._known:
                if not there.has_table(name):
                    continue
                names = [one["name"] for one in there.get_columns(name)]
                columns = [(one, self._known[name][one]) for one in names]
                some = table(name, *(column(one, _TYPES[kind]) for one, kind in columns))
                writer.write_table(name, columns, (tuple(row) for row in connection.execute(select(*some.c))))
            writer.finish()


async def test_a_backup_that_another_key_sealed_is_refused(
    sqlite_db: Database, target_url: str, tmp_path: Path
) -> None:
    await make_lab(sqlite_db)
    await backup(sqlite_db, tmp_path / "backup")

    async with opened(target_url, OTHER_KEY) as target:
        with pytest.raises(SettingError, match="not the key"):
            await restore(target, tmp_path / "backup")
        await is_untouched(target)


async def test_rows_that_a_database_does_not_take_leave_it_empty(
    sqlite_db: Database, postgresql_url: str, tmp_path: Path
) -> None:
    await make_lab(sqlite_db)
    await sqlite_db.transact(lambda one: one.execute(text("UPDATE sites SET name = 'a' || char(0) || 'b'")))
    file = tmp_path / "backup"
    await backup(sqlite_db, file)

    async with opened(postgresql_url) as target:
        with pytest.raises(InvalidBackup, match="sites has rows that this database does not take"):
            await restore(target, file)
        await is_untouched(target)


async def test_a_restore_for_which_the_disk_is_too_small_leaves_nothing(
    filled: Database, tmp_path: Path, tiny_disk: Path
) -> None:
    file = tmp_path / "backup"
    await backup(filled, file)

    async with opened(f"sqlite:///{tiny_disk / 'restored.db'}") as target:
        with pytest.raises(DatabaseUnavailable, match="disk is full"):
            await restore(target, file)

    assert names_in(tiny_disk, "*") == []


async def test_a_backup_for_which_the_disk_is_too_small_leaves_the_older_one(db: Database, tiny_disk: Path) -> None:
    file = tiny_disk / "backup"
    file.write_bytes(b"older")
    await make_lab(db)
    await db.transact(lambda connection: many_members(connection, 6000))

    with pytest.raises(SettingError, match="No space left"):
        await backup(db, file)

    assert file.read_bytes() == b"older"
    assert names_in(tiny_disk, "*") == ["backup"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_memory_does_not_grow_with_the_rows(db: Database, tmp_path: Path) -> None:
    await make_lab(db)
    await db.transact(lambda connection: many_members(connection, 600))
    small = await peak(backup(db, tmp_path / "small"))
    await db.transact(lambda connection: many_members(connection, 2400))

    large = await peak(backup(db, tmp_path / "large"))

    assert large < small + 200_000, "2,400 people and memberships more are 2 MB as rows"


async def peak(work: Awaitable[object]) -> int:
    """The most memory, in bytes, that something had at once."""
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many_members(connection: Connection, count: int) -> None:
    """Adds people who are all in one group."""
    account_id = connection.scalar(select(Account.id))
    group_id = connection.scalar(select(Group.id).where(Group.type == "static"))
    people = [
        {"account_id": account_id, "id": new_id(), "type": "service_account", "name": f"robot {number}"}
        for number in range(count)
    ]
    connection.execute(insert(Actor), people)
    members = [
        {"account_id": account_id, "id": new_id(), "actor_id": one["id"], "group_id": group_id} for one in people
    ]
    connection.execute(insert(Membership), members)


async def test_a_file_that_cannot_be_written_is_said(db: Database, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be written: No such file or directory"):
        await backup(db, tmp_path / "missing" / "backup")


async def test_a_database_of_another_program_is_left(tmp_path: Path, db: Database, postgresql_url: str) -> None:
    await backup(db, tmp_path / "backup")

    async with opened(postgresql_url) as target:
        await target.transact(lambda connection: connection.execute(text("CREATE TABLE theirs (id int)")))
        with pytest.raises(Conflict, match="another program"):
            await restore(target, tmp_path / "backup")


async def test_the_tables_of_another_version_are_not_backed_up(db: Database, tmp_path: Path) -> None:
    await db.transact(lambda one: one.execute(text("UPDATE alembic_version SET version_num = '0001'")))

    with pytest.raises(SettingError, match=r"another version \(0001\)"):
        await backup(db, tmp_path / "backup")

    assert names_in(tmp_path, "*backup*") == []


async def test_a_lost_row_and_a_changed_value_show_in_the_checksum(filled: Database) -> None:
    before = await checksums(filled)

    await filled.transact(lambda one: one.execute(text("UPDATE sites SET name = 'other' WHERE name = 'Vienna'")))
    changed_value = await checksums(filled)
    await filled.transact(lambda one: one.execute(delete(Base.metadata.tables["relay_tokens"])))
    lost_rows = await checksums(filled)

    assert [name for name in before if before[name] != changed_value[name]] == ["sites"]
    assert [name for name in before if changed_value[name] != lost_rows[name]] == ["relay_tokens"]
    assert lost_rows["relay_tokens"] == TableSum(0, "0" * 64)


def test_a_checksum_depends_on_rows_and_not_on_their_order() -> None:
    one, other, less = Adder(), Adder(), Adder()
    for row in (["a", {"x": 1.0, "y": 2}], ["b", None]):
        one.add(["text", "json"], row)
    for row in (["b", None], ["a", {"y": 2, "x": 1}]):
        other.add(["text", "json"], row)
    less.add(["text", "json"], ["b", None])

    assert one.total() == other.total() != less.total()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(gzip.compress)))
def test_any_file_is_a_backup_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "any"
    file.write_bytes(content)

    for read in (read_header, verify):
        with pytest.raises(InvalidBackup):
            read(file)


@given(
    lines=st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["groups", "uuid", "text"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["table", "columns", "end", "rows", "checksum", "complete", "sha256"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=8,
        ),
        max_size=6,
    )
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_lines_are_a_backup_or_refused(tmp_path: Path, lines: list[object]) -> None:
    header = {"kind": "wardgate-backup", "format": 1}
    file = tmp_path / "any"
    file.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in [header, *lines]).encode()))

    with pytest.raises(InvalidBackup):
        verify(file)


def names_in(directory: Path, pattern: str) -> list[str]:
    return [path.name for path in directory.glob(pattern)]


def changed(content: bytes, old: bytes, new: bytes) -> bytes:
    plain = gzip.decompress(content)
    assert old in plain
    return gzip.compress(plain.replace(old, new))


def without_line(content: bytes, part: bytes) -> bytes:
    lines = gzip.decompress(content).splitlines(keepends=True)
    assert any(part in line for line in lines)
    return gzip.compress(b"".join(line for line in lines if part not in line))


class opened:
    """A database that is closed afterwards."""

    def __init__(self, url: str, key: str = SECRET_KEY) -> None:
        self._db = Database(url, ManualClock(), key)

    async def __aenter__(self) -> Database:
        return self._db

    async def __aexit__(self, *error: object) -> None:
        await self._db.close()


async def is_untouched(target: Database) -> None:
    """The restore left no table, and on SQLite not even a file."""
    if target.is_sqlite:
        assert target.is_missing
    else:
        assert await target.snapshot(migrate.current) is None
