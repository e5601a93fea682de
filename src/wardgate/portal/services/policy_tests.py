"""Policy tests: kept, changed, and run. `db/access_guard.py` runs them before every change of access."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from wardgate.errors import Conflict, InvalidInput
from wardgate.portal.db.access_guard import failure, spec_of
from wardgate.portal.db.access_tables import PolicyTest
from wardgate.portal.db.engine import Database
from wardgate.portal.db.purge import LOG_RETENTION
from wardgate.portal.db.scope import Scope, UnitOfWork
from wardgate.portal.db.tables import Group, Resource
from wardgate.portal.domain import checks
from wardgate.portal.domain.policy_tests import MAX_PAIRS, all_violations, check_test, pair_count
from wardgate.portal.domain.snapshot import AccessSnapshot

MAX_TESTS: Final = 200
_FIELDS: Final = ("name", "who", "resource", "expectation", "at", "is_enabled")


@dataclass(frozen=True, slots=True)
class TestResult:
    """Whether a test holds.

    Attributes:
        failure: How many pairs are not as it has them, and some of them.
    """

    row: PolicyTest
    holds: bool
    failure: Mapping[str, Any] | None


async def create_policy_test(unit: UnitOfWork, fields: Mapping[str, Any], snapshot: AccessSnapshot) -> PolicyTest:
    """Makes a test. One that does not hold yet may be made: it stands in the way of what makes it worse.

    Raises:
        InvalidInput: A field is not acceptable, or the name is taken.
        Conflict: There are too many tests.
    """
    count = await unit.session.scalar(
        select(func.count()).select_from(PolicyTest).where(PolicyTest.account_id == unit.account_id)
    )
    if (count or 0) >= MAX_TESTS:
        raise Conflict(f"the account has {MAX_TESTS} policy tests, which is the most")
    row = PolicyTest(account_id=unit.account_id, **await _checked(unit, fields, snapshot))
    await unit.insert(row, unique="name")
    return row


async def update_policy_test(
    unit: UnitOfWork, test_id: str, fields: Mapping[str, Any], snapshot: AccessSnapshot
) -> PolicyTest:
    """Changes a test; what was known of its being broken is forgotten.

    Raises:
        NotFound: There is no such test.
        InvalidInput: A field is not acceptable, or the name is taken.
    """
    row = await unit.get(PolicyTest, test_id)
    known = {name: getattr(row, name) for name in _FIELDS} | {"from": row.origin}
    values = await _checked(unit, {**known, **fields}, snapshot)
    await unit.update(row, unique="name", **values, broken_at=None, broken_reason=None, broken_by=None)
    return row


async def delete_policy_test(unit: UnitOfWork, test_id: str) -> PolicyTest:
    """Removes a test.

    Raises:
        NotFound: There is no such test.
    """
    row = await unit.get(PolicyTest, test_id)
    await unit.delete(row)
    return row


async def run_policy_tests(
    db: Database, scope: Scope, now: datetime, *, as_of: datetime | None = None, ids: Sequence[str] | None = None
) -> list[TestResult]:
    """Runs the tests, those that are switched off as well.

    Args:
        as_of: The time whose policies they are run against.
        ids: Only these.

    Raises:
        InvalidInput: The change log does not reach back to `as_of`, or there is no such test.
    """
    snapshot = await snapshot_at(db, scope, now, as_of)
    rows = list(await scope.all(scope.select(PolicyTest).order_by(PolicyTest.name, PolicyTest.id)))
    if ids is not None:
        unknown = sorted(set(ids) - {row.id for row in rows})
        if unknown:
            raise InvalidInput({"ids": [f"has no policy test {one}" for one in unknown]})
        rows = [row for row in rows if row.id in ids]
    return [result_of(row, snapshot, as_of or now) for row in rows]


async def snapshot_at(db: Database, scope: Scope, now: datetime, as_of: datetime | None) -> AccessSnapshot:
    """The access facts of now, or of another time.

    Raises:
        InvalidInput: The change log does not reach back to `as_of`.
    """
    if as_of is None:
        return (await db.snapshots.current(scope))[1]
    return await db.snapshots.as_of(scope, as_of, now, LOG_RETENTION)


def result_of(row: PolicyTest, snapshot: AccessSnapshot, at: datetime) -> TestResult:
    """Whether a test holds, and some of what is not as it has it."""
    pairs = all_violations(spec_of(row), snapshot, at)
    return TestResult(row, not pairs, failure(row, pairs, snapshot, snapshot) if pairs else None)


async def _checked(unit: UnitOfWork, fields: Mapping[str, Any], snapshot: AccessSnapshot) -> dict[str, Any]:
    values = check_test(fields)
    values["who"] = await _who(unit, values["who"])
    resource = values["resource"]
    if checks.is_uuid(resource):
        if await unit.find(Resource, resource) is None:
            raise InvalidInput({"resource": ["does not exist"]})
        values["resource"] = resource.lower()
    row = PolicyTest(account_id=unit.account_id, id="", **values)
    pairs = pair_count(spec_of(row), snapshot)
    if pairs > MAX_PAIRS and row.expectation == "reaches":
        raise InvalidInput({"resource": [f"together with who makes {pairs} pairs; {MAX_PAIRS} are the most"]})
    return values


async def _who(unit: UnitOfWork, who: str) -> str:
    """Groups by id: a test follows a group that is renamed."""
    kind, _, value = who.partition(":")
    if kind == "actor":
        problems = checks.Problems()
        address = checks.email(problems, {"who": value}, "who")
        problems.raise_if_any()
        return f"actor:{address}"
    if kind != "group":
        return who
    query = unit.select(Group)
    query = query.where(Group.id == value.lower()) if checks.is_uuid(value) else query.where(Group.name == value)
    found = await unit.all(query.limit(2))
    if not found:
        raise InvalidInput({"who": [f"names a group that is not there: {value}"]})
    if len(found) > 1:
        raise InvalidInput({"who": [f"names several groups: {', '.join(sorted(one.id for one in found))}"]})
    return f"group:{found[0].id}"
