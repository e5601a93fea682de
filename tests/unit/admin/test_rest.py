"""The REST client against a small portal of its own: envelopes, pages, problems."""

import json
from pathlib import Path

import httpx
import pytest

from wardgate.admin.rest import ApiProblem, RestClient, check_url, read_token
from wardgate.errors import SettingError

SITES = [{"id": f"00000000-0000-4000-8000-{number:012d}", "name": f"site {number}"} for number in range(250)]


def test_lists_are_read_page_by_page() -> None:
    with client() as rest:
        assert list(rest.all("/sites")) == SITES


def test_a_thing_is_found_by_its_id_or_its_name() -> None:
    with client() as rest:
        assert rest.find("/sites", SITES[7]["id"]) == SITES[7]
        assert rest.find("/sites", "site 7") == SITES[7]


def test_an_unknown_name_says_what_was_looked_for() -> None:
    with client() as rest, pytest.raises(ApiProblem, match="there is no site named 'nowhere'"):
        rest.find("/sites", "nowhere")


def test_a_problem_carries_its_status_and_each_field() -> None:
    with client() as rest, pytest.raises(ApiProblem) as caught:
        rest.data("POST", "/sites", {"site": {"name": ""}})

    assert caught.value.status == 422
    assert "name: can't be blank" in str(caught.value)


def test_an_unreachable_portal_is_a_problem_with_its_address() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with (
        RestClient("http://127.0.0.1:1", "t", httpx.MockTransport(refuse)) as rest,
        pytest.raises(ApiProblem, match=r"http://127\.0\.0\.1:1 cannot be reached"),
    ):
        rest.data("GET", "/account")


def test_a_token_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o644)

    with pytest.raises(SettingError, match="chmod 600"):
        read_token(path)

    path.chmod(0o600)
    assert read_token(path) == "secret"


@pytest.mark.parametrize("token", ["two words", "é", "two\nlines", ""])
def test_what_cannot_be_a_token_is_a_wrong_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    path = tmp_path / "token"
    path.write_text(token)
    path.chmod(0o600)
    monkeypatch.setenv("WARDGATE_API_TOKEN", token)

    with pytest.raises(SettingError, match="token-file"):
        read_token(path)
    with pytest.raises(SettingError, match="WARDGATE_API_TOKEN"):
        read_token(None)


@pytest.mark.parametrize("url", ["portal.example", "ftp://portal", "http://", "http://a:b:c", "http://h:99999"])
def test_what_is_no_address_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingError, match="WARDGATE_ADMIN_URL"):
        check_url(url)


def test_an_answer_that_is_no_portals_is_a_problem() -> None:
    page = httpx.MockTransport(lambda request: httpx.Response(200, html="<p>It works!</p>"))

    with RestClient("http://other.example", "t", page) as rest, pytest.raises(ApiProblem, match="no Wardgate portal"):
        list(rest.all("/sites"))


def client() -> RestClient:
    return RestClient("http://portal.example", "token", httpx.MockTransport(small_portal))


def small_portal(request: httpx.Request) -> httpx.Response:
    assert request.headers["authorization"] == "Bearer token"
    if request.method == "POST":
        name = json.loads(request.content)["site"]["name"]
        problem = {"title": "Unprocessable Entity", "detail": "The data is not valid.", "validation_errors": {}}
        problem["validation_errors"] = {"name": ["can't be blank"]} if not name else {}
        return httpx.Response(422, json=problem)
    if request.url.path != "/sites":
        wanted = request.url.path.rsplit("/", 1)[1]
        return httpx.Response(200, json={"data": next(site for site in SITES if site["id"] == wanted)})
    rows = [site for site in SITES if request.url.params.get("name") in (None, site["name"])]
    start, limit = int(request.url.params.get("page_cursor", "0")), int(request.url.params["limit"])
    following = str(start + limit) if start + limit < len(rows) else None
    metadata = {"count": len(rows), "limit": limit, "next_page": following, "prev_page": None}
    return httpx.Response(200, json={"data": rows[start : start + limit], "metadata": metadata})
