"""A small client of the portal's REST API: one request, one envelope, one error.

Source: the API's own OpenAPI document; errors are RFC 9457 problems.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import UUID

import httpx

from wardgate.errors import SettingError, WardgateError

PAGE_SIZE = 100  # the API's largest


class ApiProblem(WardgateError):
    """The portal refused.

    Attributes:
        status: The HTTP status; 0 if the portal could not be reached.
        validation_errors: What was wrong, by field.
    """

    def __init__(self, status: int, detail: str, validation_errors: Mapping[str, Any] | None = None) -> None:
        errors = dict(validation_errors or {})
        lines = [
            f"{field}: {'; '.join(map(str, texts)) if isinstance(texts, list) else texts}"
            for field, texts in errors.items()
        ]
        super().__init__("\n  ".join([detail, *lines]))
        self.status = status
        self.validation_errors = errors


class RestClient:
    """Requests with a bearer token; answers are the `data` of the envelope."""

    def __init__(
        self,
        base_url: str,
        token: str,
        transport: httpx.BaseTransport | None = None,
        *,
        force_reason: str | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        headers |= {"X-Force-Reason": quote(force_reason)} if force_reason else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=30.0, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | None) -> Any:
        """Gives the whole answer.

        Raises:
            ApiProblem: The portal refused or could not be reached.
        """
        asked = {name: value for name, value in query.items() if value is not None}
        try:
            response = self._http.request(method, path, json=body, params=asked)
        except httpx.HTTPError as error:
            raise ApiProblem(0, f"the portal at {self._http.base_url} cannot be reached: {error}") from error
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        problem = answer if isinstance(answer, dict) else {}
        if response.is_success:
            if "data" not in problem:
                raise ApiProblem(response.status_code, f"what answers at {self._http.base_url} is no Wardgate portal")
            return answer
        detail = problem.get("detail") or problem.get("title") or response.reason_phrase
        errors = problem.get("validation_errors") or _broken_tests(problem.get("policy_tests"))
        raise ApiProblem(response.status_code, f"{detail} ({response.status_code})", errors)

    def data(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: str | None) -> Any:
        """Gives the `data` of the answer."""
        return self.request(method, path, body, **query)["data"]

    def all(self, path: str, **query: str | None) -> Iterator[dict[str, Any]]:
        """Gives every row of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.request("GET", path, None, limit=str(PAGE_SIZE), page_cursor=cursor, **query)
            yield from page["data"]
            cursor = page.get("metadata", {}).get("next_page")
            if cursor is None:
                return

    def posted_pages(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Gives every page of an answer that is asked for with a body."""
        cursor: str | None = None
        while True:
            page = self.request("POST", path, body, limit=str(PAGE_SIZE), page_cursor=cursor)
            yield page["data"]
            cursor = page.get("metadata", {}).get("next_page")
            if cursor is None:
                return

    def find(self, path: str, name_or_id: str) -> dict[str, Any]:
        """Gives the one row with that id or, else, that exact name.

        Raises:
            ApiProblem: There is none, or more than one.
        """
        noun = path.strip("/").rsplit("/", 1)[-1].rstrip("s").replace("_", " ")
        if is_uuid(name_or_id):
            row: dict[str, Any] = self.data("GET", f"{path}/{name_or_id}")
            return row
        rows = list(self.all(path, name=name_or_id))
        if len(rows) == 1:
            return rows[0]
        if not rows:
            raise ApiProblem(404, f"there is no {noun} named {name_or_id!r}")
        ids = ", ".join(str(row["id"]) for row in rows)
        raise ApiProblem(409, f"several have the name {name_or_id!r}; name one by its id: {ids}")


def _broken_tests(tests: Any) -> dict[str, list[str]]:
    """What a refusal says of policy tests: examples by name."""
    found = {}
    for one in tests if isinstance(tests, list) else []:
        pairs = [(pair["actor_name"] or "nobody", pair["resource_name"] or "nothing") for pair in one["examples"]]
        found[str(one["name"])] = [f"{who} and {what}" for who, what in pairs]
    return found


def is_uuid(text: str) -> bool:
    """Whether the text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def check_url(text: str) -> None:
    """Looks at the portal's address.

    Raises:
        SettingError: It is none.
    """
    try:
        url = httpx.URL(text)
        is_good = url.scheme in ("http", "https") and bool(url.host) and (url.port or 1) < 65536
    except (httpx.InvalidURL, ValueError):
        is_good = False
    if not is_good:
        raise SettingError(f"--url (WARDGATE_ADMIN_URL): {text!r} is not http(s)://host[:port]")


def read_token(path: Path | None) -> str:
    """Gives the API token of the file, or of `WARDGATE_API_TOKEN`; never of a command line.

    Raises:
        SettingError: There is none, it cannot be one, or others may read the file.
    """
    token = _find_token(path)
    if not token.isascii() or not token.isprintable() or " " in token:
        where = "WARDGATE_API_TOKEN" if path is None else f"--token-file {path}"
        raise SettingError(f"{where}: a token is one line of printable ASCII without spaces")
    return token


def _find_token(path: Path | None) -> str:
    if path is None:
        token = os.environ.get("WARDGATE_API_TOKEN", "").strip()
        if not token:
            raise SettingError(
                "WARDGATE_API_TOKEN is not set: it, or a file named by --token-file, must hold an API token"
            )
        return token
    try:
        mode = path.stat().st_mode
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--token-file {path} cannot be read: {error}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingError(f"--token-file {path}: others may read it; run `chmod 600 {path}`")
    if not token:
        raise SettingError(f"--token-file {path}: it is empty")
    return token
