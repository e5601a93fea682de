"""The documents are true: OpenAPI says what the routes are, and `docs/problems.md` which codes there are."""

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from wardgate.portal.api.app import ROUTERS, mount
from wardgate.portal.api.codes import CODES, FIELD_CODES
from wardgate.portal.api.context import ApiContext

ROOT = Path(__file__).parents[4]
SOURCE = ROOT / "src" / "wardgate"
FREE_TEXT = {"before", "after", "subject"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = FastAPI(title="Wardgate", version="0")
    mount(app, ApiContext(None, None, None))  # type: ignore[arg-type]
    return app.openapi()


def routes() -> Iterator[tuple[str, str, APIRoute]]:
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for method in route.methods or ():
                yield route.path, method.lower(), route


def test_every_route_is_documented_and_every_documented_route_is_there(document: dict[str, Any]) -> None:
    there = {(path, method) for path, method, _ in routes()}

    assert {(path, method) for path, operations in document["paths"].items() for method in operations} == there
    assert len(there) > 85


def test_each_success_has_the_status_and_the_schema_of_its_route(document: dict[str, Any]) -> None:
    for path, method, route in routes():
        operation = document["paths"][path][method]
        status = str(route.status_code or 200)
        shown = operation["responses"][status]["content"]["application/json"]["schema"]
        name = getattr(route.response_model, "__name__", "")
        assert shown["$ref"].rsplit("/", 1)[1].startswith(re.split(r"[\[_]", name)[0]), (path, method)
        assert [one for one in operation["responses"] if one.startswith("2")] == [status]
        assert operation["description"]


def test_every_reference_leads_somewhere_and_nothing_is_left_over(document: dict[str, Any]) -> None:
    used = set(references(document))

    for one in used:
        target: Any = document
        for part in one.removeprefix("#/").split("/"):
            target = target[part]
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in used


def test_every_answer_of_a_route_names_its_request(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                shown = (
                    document["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
                    if "$ref" in answer
                    else answer
                )
                assert "x-request-id" in shown["headers"], (path, method, status)
                assert status == "401" or "RateLimit-Remaining" in shown["headers"]


def test_times_are_instants_and_ids_are_uuids(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        for field, shown in schema.get("properties", {}).items():
            text: dict[str, Any] = next((one for one in shown.get("anyOf", [shown]) if one.get("type") == "string"), {})
            if field.endswith("_at") and field not in FREE_TEXT:
                assert (text.get("format") or shown.get("format")) == "date-time", (name, field)
            if field in ("id", "actor_id", "site_id", "group_id", "resource_id"):
                assert text.get("format") == "uuid", (name, field)


def test_the_page_of_problems_lists_the_codes_that_there_are() -> None:
    text = (ROOT / "docs" / "problems.md").read_text()
    codes = {code: (int(status), words) for code, status, words in re.findall(r"\| `(\w+)` \| (\d+) \| (.*) \|", text)}
    fields = dict(re.findall(r"^\| `(\w+)` \| ([^\d|].*) \|$", text, re.MULTILINE))

    assert codes == CODES
    assert fields == FIELD_CODES


def test_every_code_that_is_used_is_listed_and_every_listed_code_is_used() -> None:
    used, of_fields = set(), set()
    for path in SOURCE.rglob("*.py"):
        if "portal" in path.parts or path.name == "errors.py":
            some, more = codes_of(path)
            used |= some
            of_fields |= more

    assert used <= set(CODES)
    assert of_fields <= set(FIELD_CODES)
    assert set(CODES) - used == set()
    assert set(FIELD_CODES) - of_fields == set()


def test_statuses_have_names() -> None:
    assert all(HTTPStatus(status).phrase for status, _ in CODES.values())


RAISED = {"Conflict", "Forbidden", "NotFound", "BadRequest"}


def codes_of(path: Path) -> tuple[set[str], set[str]]:
    """The codes of problems, and those of fields, that a module names."""
    found: set[str] = set()
    fields: set[str] = {"invalid"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            texts = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
            if name in RAISED and len(texts) > 1 and isinstance(texts[1], str):
                found.add(texts[1])
            elif name == "problem" and texts and isinstance(texts[0], str):
                found.add(texts[0])
            elif name in ("invalid", "add", "FieldProblem") and len(texts) > 2 and isinstance(texts[2], str):
                fields.add(texts[2])
        elif isinstance(node, ast.ClassDef):
            found |= {
                one.value.value
                for one in node.body
                if isinstance(one, ast.Assign)
                and getattr(one.targets[0], "id", "") == "code"
                and isinstance(one.value, ast.Constant)
                and isinstance(one.value.value, str)
            }
        elif isinstance(node, ast.Dict) and path.name in ("problems.py", "guard.py"):
            found |= {
                str(value.value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, int) and isinstance(value, ast.Constant)
            }
        elif isinstance(node, ast.Tuple) and path.name == "problems.py" and len(node.elts) == 2:
            last = node.elts[1]
            if isinstance(last, ast.Constant) and last.value == "required":
                fields.add("required")
    return found - {"about:blank"}, fields


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)
