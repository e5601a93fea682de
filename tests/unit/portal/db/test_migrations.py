"""Each migration goes up and down on filled tables, on both databases, and one that fails changes nothing."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from tests.unit.portal.filling import fill
from wardgate.errors import SettingError
from wardgate.portal.db.engine import Database
from wardgate.portal.db.migrate import BASE, current, revisions
from wardgate.portal.db.tables import Base

PLANTED = '''
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = "9999", "{before}", None, None
def upgrade():
    """Does a lot before it fails."""
    op.create_table("planted", sa.Column("id", sa.Integer(), primary_key=True))
    with op.batch_alter_table("groups") as batch:
        batch.add_column(sa.Column("planted", sa.String(10)))
    op.execute("UPDATE groups SET name = 'planted'")
    op.execute("DELETE FROM memberships")
    op.drop_table("policy_authorizations")
    op.execute({statement!r})
def downgrade():
    """Never reached."""
'''


async def test_migrations_make_exactly_the_tables(db: Database) -> None:
    assert await db.transact(differences) == []


async def test_every_migration_goes_down_and_up_on_filled_tables(db: Database) -> None:
    filled = await db.transact(lambda connection: fill(connection, db.keyring))
    fresh = await schemas_on_the_way_up(db, filled)
    known = revisions()

    for newer, older in zip(known, [*known[1:], BASE], strict=True):
        before = await db.transact(keys)
        await db.migrate(older)
        assert await db.transact(schema) == fresh[older], f"{newer} does not go back to what {older} makes"
        left = await db.transact(keys)
        assert left == {table: rows for table, rows in before.items() if table in left}, (
            f"{newer} loses rows on the way"
        )
        await db.migrate(newer)
        assert await db.transact(schema) == fresh[newer]
        again = await db.transact(keys)
        assert left == {table: rows for table, rows in again.items() if table in left}, f"{newer} loses rows on the way"
        await db.migrate(older)

    assert await db.transact(lambda connection: inspect(connection).get_table_names()) == ["alembic_version"]
    await db.migrate()
    assert await db.transact(differences) == []


async def schemas_on_the_way_up(db: Database, filled: dict[str, int]) -> dict[str, Any]:
    """What each revision makes of an empty database; afterwards all is as it was."""
    assert all(filled.values())
    seen: dict[str, Any] = {}

    def climb(connection: Connection) -> None:
        from wardgate.portal.db.migrate import migrate

        migrate(connection, BASE, keyring=db.keyring)
        seen[BASE] = schema(connection)
        for revision in reversed(revisions()):
            migrate(connection, revision)
            seen[revision] = schema(connection)
        raise Undone

    with pytest.raises(Undone):
        await db.transact(climb, checks_references=False)
    return seen


class Undone(Exception):
    """Ends a transaction that is not to be committed."""


async def test_going_back_says_what_was_done(db: Database) -> None:
    known = revisions()

    down = await db.migrate("0001")
    up = await db.migrate()

    assert down is not None
    assert (down.before, down.after) == (known[0], "0001")
    assert [(step.revision, step.is_up) for step in down.steps] == [(one, False) for one in known[:-1]]
    assert up is not None
    assert [(step.revision, step.is_up) for step in up.steps] == [(one, True) for one in known[-2::-1]]
    assert await db.migrate() is None


@pytest.mark.parametrize("statement", ["SELECT nonsense", "UPDATE devices SET account_id = NULL"])
async def test_a_migration_that_fails_leaves_everything_as_it_was(db: Database, tmp_path: Path, statement: str) -> None:
    await db.transact(lambda connection: fill(connection, db.keyring))
    (tmp_path / "9999_planted.py").write_text(PLANTED.format(before=revisions()[0], statement=statement))
    before = await db.transact(everything)

    with pytest.raises(Exception, match=r"nonsense|NULL|null"):
        await db.migrate(versions=[tmp_path])

    assert await db.transact(everything) == before
    assert await db.transact(current) == revisions()[0]
    await db.prepare()


async def test_a_migration_that_leaves_broken_references_is_undone(
    sqlite_db: Database, database_path: Path, tmp_path: Path
) -> None:
    await sqlite_db.transact(lambda connection: fill(connection, sqlite_db.keyring))
    planted = PLANTED.format(before=revisions()[0], statement="DELETE FROM actors")
    (tmp_path / "9999_planted.py").write_text(planted)
    before = await sqlite_db.transact(everything)

    with pytest.raises(SettingError, match="point to nothing"):
        await sqlite_db.migrate(versions=[tmp_path])

    assert await sqlite_db.transact(everything) == before
    connection = sqlite3.connect(database_path)
    assert connection.execute("PRAGMA user_version").fetchone() == (len(revisions()),)
    connection.close()


async def test_the_tables_of_a_newer_version_are_refused_and_left(db: Database) -> None:
    await db.transact(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9998'")))

    with pytest.raises(SettingError, match="newer version"):
        await db.migrate()
    if not db.is_sqlite:
        with pytest.raises(SettingError, match="newer version"):
            await db.prepare()

    assert await db.transact(current) == "9998"


async def test_an_unknown_revision_is_named(db: Database) -> None:
    with pytest.raises(SettingError, match=r"there is no revision 4711; there are 0001, "):
        await db.migrate("4711")


def differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def keys(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The primary keys of all rows, by table."""
    there = inspect(connection)
    found = {}
    for table in there.get_table_names():
        columns = ", ".join(there.get_pk_constraint(table)["constrained_columns"])
        if table != "alembic_version":
            found[table] = sorted(
                tuple(map(str, row)) for row in connection.execute(text(f"SELECT {columns} FROM {table}"))
            )
    return found


def schema(connection: Connection) -> dict[str, Any]:
    """All tables with all that was declared about them, in an order of its own."""
    there = inspect(connection)
    return {
        table: {
            "columns": sorted((one["name"], str(one["type"]), one["nullable"]) for one in there.get_columns(table)),
            "key": there.get_pk_constraint(table)["constrained_columns"],
            "references": sorted(
                (one["constrained_columns"], one["referred_table"], str(one["options"]))
                for one in there.get_foreign_keys(table)
            ),
            "unique": sorted((one["column_names"], str(one["name"])) for one in there.get_unique_constraints(table)),
            "checks": sorted((str(one["name"]), one["sqltext"]) for one in there.get_check_constraints(table)),
            "indexes": sorted(
                (str(one["name"]), one["column_names"], one["unique"]) for one in there.get_indexes(table)
            ),
        }
        for table in sorted(there.get_table_names())
    }


def everything(connection: Connection) -> Any:
    tables = inspect(connection).get_table_names()
    rows = {table: sorted(map(repr, connection.execute(text(f"SELECT * FROM {table}")))) for table in tables}
    return schema(connection), rows
