"""What people read of the API's objects: whole, and in the words in which they are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from wardgate.admin import main
from wardgate.admin.rest import RestClient

GROUP, RESOURCE, POLICY = (str(UUID(int=number)) for number in (1, 2, 3))
CONDITION = {"property": "remote_ip", "operator": "is_in_cidr", "values": ["10.0.0.0/8", "192.0.2.0/24"]}
LONG = "a name that is wider than eighty columns of a terminal " * 3
ROWS = {
    "/groups": [{"id": GROUP, "name": LONG}],
    "/resources": [{"id": RESOURCE, "name": "wiki", "type": "dns", "filters": [], "site_id": "gone"}],
    "/sites": [],
    "/policies": [{"id": POLICY, "group_id": GROUP, "resource_id": RESOURCE, "conditions": [CONDITION]}],
}


class Portal(main.Session):
    """A session whose portal is a table of rows."""

    @contextmanager
    def rest(self) -> Iterator[RestClient]:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json={"data": ROWS[request.url.path], "metadata": {}})

        yield RestClient("http://portal.example", "t", httpx.MockTransport(answer))


@pytest.fixture(autouse=True)
def _portal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "Session", Portal)


def test_policies_are_listed_with_whole_ids_and_names() -> None:
    head, row = shown("policies", "list")

    assert row.startswith(f"{POLICY}  {LONG.rstrip()}")
    assert row.index("wiki") == head.index("resource")
    assert row.endswith("remote_ip:is_in_cidr:10.0.0.0/8;192.0.2.0/24")


def test_no_filter_means_everything_and_unknown_names_are_ids() -> None:
    head, row = shown("resources", "list")

    assert row.split() == [RESOURCE, "wiki", "dns", "-", "everything", "gone"]
    assert head.split()[-1] == "site"


def test_table_without_rows_is_its_head() -> None:
    assert shown("sites", "list") == ["id  name"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("resources", "create", "x", "--type", "host", "--address", "x", "--site", "s"), "dns, cidr, ip"),
        (("actors", "create", "x", "--type", "person"), "service_account"),
        (("policies", "delete", "../groups"), "no id"),
        (("resources", "update", "x", "--filter", "sctp"), "--filter"),
        (("client-tokens", "create", "x", "--expires-in", "soon"), "--expires-in"),
    ],
)
def test_wrong_word_is_named_with_what_is_accepted(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(main.app, words)

    assert done.exit_code == 2
    assert said in done.stderr


def shown(*words: str) -> list[str]:
    done = CliRunner().invoke(main.app, words)
    assert done.exit_code == 0, done.stderr
    return done.stdout.splitlines()
