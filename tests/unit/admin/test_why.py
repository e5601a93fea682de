"""The commands about access: what they ask, and what they print."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from wardgate.admin import explain, main, rest
from wardgate.admin.why import explained, parse_time

ANSWER: dict[str, Any] = {
    "allowed": False,
    "reasons": [{"code": "conditions_violated", "text": "It is too late."}],
    "as_of": "2026-11-26T14:21:00Z",
    "expires_at": None,
    "decided_by": None,
    "actor": {"name": "Carol Cedar", "groups": [{"name": "Data"}]},
    "resource": {"name": "Payments DB"},
    "device": {"name": "carol-laptop"},
    "circumstances": {"at": "2026-11-26T14:21:00Z", "remote_ip": "198.51.100.71", "region": "DE", "is_verified": True},
    "policies": [
        {
            "id": "p1",
            "group": {"name": "Data"},
            "state": "conditions_violated",
            "conditions": [
                {
                    "property": "current_utc_datetime",
                    "operator": "is_in_day_of_week_time_ranges",
                    "values": ["R/07:00-14:00/Europe/Berlin"],
                    "seen": "Thu 15:21 in Europe/Berlin",
                    "holds": False,
                    "until": None,
                    "opens_at": "2026-11-27T06:00:00Z",
                }
            ],
        }
    ],
    "gateways": [{"id": "g", "name": "one", "is_online": True, "is_compatible": True, "is_candidate": True}],
    "authorization": None,
    "last_refusal": {"at": "then", "reason": "forbidden", "violated_properties": ["remote_ip"], "count": 3},
    "hints": [{"kind": "wait", "group": {"name": "Data"}, "at": "2026-11-27T06:00:00Z"}],
}


class Api:
    """Answers in the place of a portal, and keeps what was asked."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda request: httpx.Response(
            200, json={"data": ANSWER}
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    answering = Api()

    class Client(rest.RestClient):
        def __init__(self, base_url: str, token: str, *, force_reason: str | None = None) -> None:
            super().__init__(base_url, token, httpx.MockTransport(answering), force_reason=force_reason)

    monkeypatch.setattr(main, "RestClient", Client)
    monkeypatch.setenv("WARDGATE_API_TOKEN", "token")
    return answering


def run(app: Any, *words: str, text: str | None = None) -> Any:
    return CliRunner().invoke(app, list(words), input=text)


def test_explain_asks_once_and_shows_each_condition(api: Api) -> None:
    words = ("carol@corp.example", "Payments DB", "--at", "2026-11-26T14:21Z", "--from", "198.51.100.71")

    result = run(explain.app, *words, "--device", "carol-laptop")

    assert result.exit_code == 0, result.output
    (asked,) = api.requests
    assert dict(asked.url.params) | {"at": ""} == {
        "actor": "carol@corp.example",
        "resource": "Payments DB",
        "at": "",
        "from": "198.51.100.71",
        "device": "carol-laptop",
    }
    assert asked.url.params["at"].startswith("2026-11-26T")
    lines = result.output.splitlines()
    assert lines[:2] == ["no: Carol Cedar does not reach Payments DB", "  It is too late."]
    assert any("FAILS: current_utc_datetime" in line and "opens at 2026-11-27" in line for line in lines)
    assert "last refused at then: forbidden, remote_ip (3 in all)" in lines
    assert lines[-1] == "would let them in: wait until 2026-11-27T06:00:00Z: the policy for Data opens"


def test_explain_gives_the_api_object_as_json(api: Api) -> None:
    assert json.loads(run(explain.app, "a", "b", "--json").output) == ANSWER
    assert json.loads(run(main.app, "--json", "explain", "a", "b").output) == ANSWER


def test_names_of_others_cannot_move_the_cursor(api: Api) -> None:
    ANSWER_WITH_ESCAPE = ANSWER | {"actor": {"name": "\x1b[2Jevil", "groups": []}}
    api.answer = lambda request: httpx.Response(200, json={"data": ANSWER_WITH_ESCAPE})

    assert "\x1b" not in run(explain.app, "a", "b").output
    assert "\x1b" in explained(ANSWER_WITH_ESCAPE)[0]


@pytest.mark.parametrize("text", ["yesterday", "25:00", "2026-13-01"])
def test_a_time_that_is_none_is_refused_with_an_example(api: Api, text: str) -> None:
    result = run(explain.app, "a", "b", "--at", text)

    assert result.exit_code == 2
    assert "14:21" in result.output
    assert api.requests == []


def test_a_time_of_day_is_one_of_today() -> None:
    at = parse_time("--at", "14:21")

    assert at is not None
    assert at[10:16] == "T14:21"
    assert parse_time("--at", None) is None


def test_a_preview_is_read_from_a_file_and_joined_from_its_pages(api: Api, tmp_path: Path) -> None:
    hours = {"zone": "UTC", "windows": ["Mon 00:00-07:00"], "is_always": False}
    pair = {"kind": "fewer_hours", "hours_lost": hours, "hours_gained": None}

    def answer(request: httpx.Request) -> httpx.Response:
        is_first = "page_cursor" not in request.url.params
        name = "Ann" if is_first else "Bob"
        data = {
            "pairs": {"fewer_hours": 2, "loses": 0},
            "ended_authorizations": 1,
            "tests": [{"name": "night", "state": "breaks"}],
            "changes": [{**pair, "actor": {"name": name}, "resource": {"name": "DB"}}],
        }
        return httpx.Response(200, json={"data": data, "metadata": {"next_page": "more" if is_first else None}})

    api.answer = answer
    file = tmp_path / "change.json"
    file.write_text('{"method": "DELETE", "path": "/policies/1"}')

    result = run(main.app, "preview", str(file))
    same = run(main.app, "preview", "-", text=file.read_text())

    assert result.exit_code == 0, result.output
    assert result.output == same.output
    lines = result.output.splitlines()
    assert lines[:3] == ["2 fewer hours", "ends 1 authorizations now", "policy test 'night': breaks"]
    assert [line.split()[1] for line in lines[4:]] == ["Ann", "Bob"]
    assert "Mon 00:00-07:00 UTC" in lines[4]


@pytest.mark.parametrize("text", ["no JSON", "[1]"])
def test_a_preview_of_nonsense_is_refused(api: Api, text: str) -> None:
    result = run(main.app, "preview", "-", text=text)

    assert result.exit_code == 2
    assert api.requests == []


def test_a_forced_change_says_why_in_any_script(api: Api) -> None:
    run(main.app, "--force-reason", "\N{LATIN CAPITAL LETTER U WITH DIAERESIS}bung", "account")

    assert api.requests[0].headers["x-force-reason"] == "%C3%9Cbung"


def test_a_refusal_names_the_tests_with_examples(api: Api) -> None:
    pair = {"actor_name": "Carl", "resource_name": "Payments DB"}
    problem = {"detail": "the change breaks", "policy_tests": [{"name": "never", "examples": [pair]}]}
    api.answer = lambda request: httpx.Response(409, json=problem)

    result = run(main.app, "account")

    assert result.exit_code == 1
    assert "never: Carl and Payments DB" in result.output


def test_policy_tests_are_made_run_and_judged(api: Api) -> None:
    test = {"name": "never", "is_enabled": True}
    pair = {"actor_name": "Carl", "resource_name": "Payments DB"}
    found = [{"test": test, "holds": False, "count": 1, "examples": [pair]}]
    api.answer = lambda request: httpx.Response(
        200, json={"data": found[0] if request.url.path == "/policy_tests" else found}
    )
    words = ("--who", "group:Contractors", "--resource", "payments*", "--expect", "never_reaches")

    made = run(
        main.app, "policy-tests", "create", "never", *words, "--moment", "MT/03:00/Europe/Berlin", "--region", "DE"
    )
    ran = run(main.app, "policy-tests", "run")

    assert made.exit_code == 0, made.output
    assert json.loads(api.requests[0].content)["policy_test"] == {
        "name": "never",
        "who": "group:Contractors",
        "resource": "payments*",
        "expectation": "never_reaches",
        "at": {"days": "MT", "time": "03:00", "zone": "Europe/Berlin"},
        "from": {"region": "DE"},
    }
    assert ran.exit_code == 1
    assert ran.output.splitlines() == ["DOES NOT HOLD for 1: never", "  Carl and Payments DB"]


def test_reach_is_a_table(api: Api) -> None:
    row = {
        "actor": {"name": "Ann"},
        "resource": {"name": "Wiki"},
        "site": None,
        "is_always": True,
        "policies": [{"group": {"name": "Staff"}}],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        data = [row] if request.url.path == "/reach" else [{"id": "g1", "name": "Staff"}]
        return httpx.Response(200, json={"data": data, "metadata": {"next_page": None}})

    api.answer = answer

    result = run(main.app, "reach", "--group", "Staff")

    assert api.requests[-1].url.params["group"] == "g1"
    assert result.output.splitlines()[1].split() == ["Ann", "Wiki", "-", "always", "Staff"]
