"""What must stay true of access."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, Field

from wardgate.portal.api.context import Authenticated, Caller
from wardgate.portal.api.lists import Paged, page_of
from wardgate.portal.api.objects import Data, In, Out, Page, Text
from wardgate.portal.api.routing import updates
from wardgate.portal.db.access_tables import PolicyTest
from wardgate.portal.services import policy_tests
from wardgate.portal.services.policy_tests import TestResult

router = APIRouter(tags=["Policy tests"])


class TestAt(BaseModel):
    """The same time of day on some days of the week."""

    days: str = Field("MTWRFSU", description="Letters of MTWRFSU: R is Thursday, U is Sunday.")
    time: str = Field(description="As `03:00`.")
    zone: str = Field("UTC", description="As `Europe/Berlin`.")


class TestFrom(BaseModel):
    """What is known of the connection; anything that is not said is taken as favourable."""

    remote_ip: str | None = None
    region: str | None = None
    auth_provider_id: str | None = None
    verified: bool | None = None


class PolicyTestIn(In):
    """What can be said of a test."""

    name: Text | None = None
    who: Text | None = Field(None, description="`everyone`, `anyone`, `group:NAME`, `group:ID` or `actor:EMAIL`.")
    resource: Text | None = Field(None, description="An id, or a pattern of names such as `payments*`; `*` is all.")
    expectation: Literal["reaches", "never_reaches"] | None = None
    at: TestAt | None = Field(None, description="Else at all times, or never at any time.")
    from_: TestFrom | None = Field(None, alias="from")
    is_enabled: bool | None = None

    def given(self) -> dict[str, Any]:
        """The fields that the request named."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class PolicyTestOut(Out):
    """A test; the `broken_*` fields are those of the change that broke it by force."""

    id: UUID
    name: str
    who: str
    resource: str
    expectation: Literal["reaches", "never_reaches"]
    at: TestAt | None
    from_: TestFrom | None = Field(validation_alias="origin", serialization_alias="from")
    is_enabled: bool
    broken_at: datetime | None
    broken_reason: str | None
    broken_by: str | None
    inserted_at: datetime
    updated_at: datetime


class Example(BaseModel):
    """A pair that is not as a test has it; empty where there is nobody or nothing that the test is about."""

    actor_id: UUID | None
    actor_name: str | None
    resource_id: UUID | None
    resource_name: str | None


class PolicyTestResult(BaseModel):
    """Whether a test holds."""

    test: PolicyTestOut
    holds: bool
    count: int = Field(description="How many pairs are not as the test has them.")
    examples: list[Example]


class RunIn(BaseModel):
    """Which tests to run, and when."""

    ids: list[UUID] | None = Field(None, max_length=policy_tests.MAX_TESTS, description="All if it is not there.")
    as_of: datetime | None = Field(None, description="Runs them against what the policies were at that time.")


TestBody = Annotated[PolicyTestIn, Body(embed=True)]


def _result(found: TestResult) -> PolicyTestResult:
    failure = found.failure or {"count": 0, "examples": []}
    test = PolicyTestOut.model_validate(found.row)
    return PolicyTestResult.model_validate({"test": test, "holds": found.holds, **_of(failure)})


def _of(failure: Any) -> dict[str, Any]:
    return {name: failure[name] for name in ("count", "examples")}


@router.get("/policy_tests")
async def list_policy_tests(caller: Authenticated, place: Paged) -> Page[PolicyTestOut]:
    """Lists what must stay true of access."""
    async with caller.db.scoped(caller.subject) as scope:
        return await page_of(scope, PolicyTest, place, PolicyTestOut.model_validate)


@router.get("/policy_tests/{test_id}")
async def read_policy_test(caller: Authenticated, test_id: UUID) -> Data[PolicyTestOut]:
    """Reads a policy test."""
    async with caller.db.scoped(caller.subject) as scope:
        return Data(data=PolicyTestOut.model_validate(await scope.get(PolicyTest, str(test_id))))


@router.post("/policy_tests", status_code=201)
async def create_policy_test(
    caller: Authenticated, policy_test: TestBody, response: Response
) -> Data[PolicyTestResult]:
    """Makes a policy test, and says whether it holds."""
    async with caller.db.writing(caller.subject) as unit:
        _, snapshot = await caller.db.snapshots.current(unit)
        row = await policy_tests.create_policy_test(unit, policy_test.given(), snapshot)
    response.headers["Location"] = f"/policy_tests/{row.id}"
    return Data(data=_result(policy_tests.result_of(row, snapshot, _now(caller))))


@updates(router, "/policy_tests/{test_id}")
async def update_policy_test(caller: Authenticated, test_id: UUID, policy_test: TestBody) -> Data[PolicyTestResult]:
    """Changes a policy test, and says whether it holds."""
    async with caller.db.writing(caller.subject) as unit:
        _, snapshot = await caller.db.snapshots.current(unit)
        row = await policy_tests.update_policy_test(unit, str(test_id), policy_test.given(), snapshot)
    return Data(data=_result(policy_tests.result_of(row, snapshot, _now(caller))))


@router.delete("/policy_tests/{test_id}")
async def delete_policy_test(caller: Authenticated, test_id: UUID) -> Data[PolicyTestOut]:
    """Deletes a policy test."""
    async with caller.db.writing(caller.subject) as unit:
        return Data(data=PolicyTestOut.model_validate(await policy_tests.delete_policy_test(unit, str(test_id))))


@router.post("/policy_tests/run")
async def run_policy_tests(caller: Authenticated, wanted: RunIn | None = None) -> Data[list[PolicyTestResult]]:
    """Runs the tests, those that are switched off as well, and changes nothing."""
    wanted = wanted or RunIn.model_validate({})
    ids = None if wanted.ids is None else [str(one) for one in wanted.ids]
    async with caller.db.scoped(caller.subject) as scope:
        found = await policy_tests.run_policy_tests(caller.db, scope, _now(caller), as_of=aware(wanted.as_of), ids=ids)
    return Data(data=[_result(one) for one in found])


def aware(at: datetime | None) -> datetime | None:
    """An instant without a zone is one of UTC."""
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _now(caller: Caller) -> datetime:
    return caller.context.clock.utc_now()
