"""The banner that an operator shows to all admins; there is one at most."""

from typing import Final

from sqlalchemy import delete, select

from wardgate.portal.db.engine import Database
from wardgate.portal.db.identity_tables import Banner
from wardgate.portal.domain import checks

COLOURS: Final = ("info", "warning", "error", "success", "announcement")


async def current(db: Database) -> Banner | None:
    """What is shown now."""
    async with db.unscoped() as session:
        return (await session.scalars(select(Banner).order_by(Banner.inserted_at.desc()).limit(1))).one_or_none()


async def replace(db: Database, message: str | None, colour: str = "info") -> None:
    """Shows another message in place of the old one; `None` shows none.

    Raises:
        InvalidInput: The message or the colour is not acceptable.
    """
    text = None
    if message is not None:
        problems = checks.Problems()
        fields = {"message": message, "colour": colour}
        text = checks.text(problems, fields, "message", most=2048)
        checks.one_of(problems, fields, "colour", COLOURS)
        problems.raise_if_any()
    async with db.unscoped_write() as session:
        await session.execute(delete(Banner))
        if text is not None:
            session.add(Banner(message=text, colour=colour))
