"""Migrations; apart from `engine.py`, since importing Alembic takes longer than most commands do."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from wardgate.errors import SettingError
from wardgate.portal.db.keyring import Keyring
from wardgate.portal.db.sqlite_file import APPLICATION_ID


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def revisions() -> list[str]:
    """Every revision, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]


def is_current(connection: Connection) -> bool:
    """Whether the tables are of this version."""
    return list(MigrationContext.configure(connection).get_current_heads()) == revisions()[:1]


def upgrade(connection: Connection) -> None:
    """Brings the tables to this version.

    Raises:
        SettingError: They are of a newer one.
    """
    known = revisions()
    current = MigrationContext.configure(connection).get_current_heads()
    if any(revision not in known for revision in current):
        raise SettingError("database: it was made by a newer version of Wardgate; it was left untouched")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {len(known)}")


def downgrade(connection: Connection, revision: str, keyring: Keyring) -> None:
    """Takes the tables back to an older revision, whose secrets are plain.

    Raises:
        SettingError: The key does not open the secrets; nothing is changed then.
    """
    config = _config()
    config.attributes.update(connection=connection, keyring=keyring)
    command.downgrade(config, revision)
