"""Whatever the document allows, and what it does not, is answered as the document says.

Requests are made up from `/openapi.json`; some of their ids lead to real things. The seed is fixed; to search longer,
or elsewhere: `WARDGATE_EXAMPLES=200 WARDGATE_SEED=8 pytest tests/unit/portal/api/test_schemathesis.py`.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import CheckFunction
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.unit.portal.api.conftest import Online, Portal, account_with_token
from tests.unit.portal.api.things import make_things
from tests.unit.portal.helpers import SECRET_KEY, ManualClock
from wardgate.portal.api.app import mount
from wardgate.portal.api.context import ApiContext, ApiLimits
from wardgate.portal.db.engine import Database

EXAMPLES = int(os.environ.get("WARDGATE_EXAMPLES", "2"))
SEED = int(os.environ.get("WARDGATE_SEED", "7"))
CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def described() -> Any:
    app = FastAPI(title="Wardgate", version="0")
    mount(app, ApiContext(None, None, None))  # type: ignore[arg-type]
    return schemathesis.openapi.from_dict(app.openapi())


SCHEMA = described()
OPERATIONS = {one.ok().label: one.ok() for one in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module")
def fuzzed(migrated: Path, tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner) -> Iterator[Portal]:
    path = tmp_path_factory.mktemp("fuzzed") / "portal.db"
    shutil.copy(migrated, path)

    async def make() -> Portal:
        clock = ManualClock()
        db = Database(f"sqlite:///{path}", clock, SECRET_KEY)
        app, online = FastAPI(title="Wardgate", version="0"), Online()
        mount(app, ApiContext(db, clock, online, limits=ApiLimits(1e9, 1e9)))
        return Portal(app, db, online, await account_with_token(db, "corp"), await account_with_token(db, "other"))

    made = runner.run(make())
    yield made
    runner.run(made.db.close())


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_documented(fuzzed: Portal, runner: asyncio.Runner, label: str, mode: GenerationMode) -> None:
    operation = OPERATIONS[label]
    things = runner.run(make_things(fuzzed))

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), is_real=st.booleans())
    def ask(case: Any, is_real: bool) -> None:
        if is_real:
            known = {name: things[name] for name in case.path_parameters or {} if name in things}
            case.path_parameters = {**(case.path_parameters or {}), **known}
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {fuzzed.token}"}
        case.validate_response(runner.run(send(fuzzed, case)), checks=CHECKS)

    ask()


async def send(portal: Portal, case: Any) -> Any:
    arguments = case.as_transport_kwargs(base_url="http://portal")
    arguments = {name: value for name, value in arguments.items() if name in WANTED and value is not None}
    if "data" in arguments:
        arguments["content"] = arguments.pop("data")
    headers = arguments.get("headers") or {}
    arguments["headers"] = {name: str(value).encode("latin-1", "replace") for name, value in headers.items()}
    async with portal.client() as client:
        return await client.request(**arguments)


WANTED = ("method", "url", "params", "headers", "json", "data")
