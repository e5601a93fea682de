"""Refusals of a connect: RFC 9457 problems with a code that components understand."""

from http import HTTPStatus

from starlette.responses import JSONResponse, PlainTextResponse, Response

from wardgate.errors import WardgateError


class Refused(WardgateError):
    """The connect is answered with an HTTP status instead of a websocket.

    Attributes:
        code: What components act upon; 401 with `invalid_token` or `missing_token` ends their session.
    """

    def __init__(self, status: int, code: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s

    def response(self) -> Response:
        """The answer."""
        body = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s is not None else None
        return JSONResponse(body, self.status, headers, media_type="application/problem+json; charset=utf-8")


class ForeignOrigin(Refused):
    """A web page of another host tries to connect."""

    def __init__(self) -> None:
        super().__init__(403, "forbidden_origin", "Forbidden")

    def response(self) -> Response:
        """The answer, which has no problem body."""
        return PlainTextResponse(self.detail, self.status)


def missing_token() -> Refused:
    """There is no token."""
    return Refused(401, "missing_token", "A token is required")


def invalid_token() -> Refused:
    """The token is unknown, expired, revoked, of another kind, or its owner is disabled."""
    return Refused(401, "invalid_token", "The token is not valid: it is unknown, expired or revoked")


def invalid_params(problems: list[str]) -> Refused:
    """Parameters are missing or wrong."""
    return Refused(400, "invalid_connect_params", "; ".join(problems))


def rate_limited() -> Refused:
    """Too many connects; 503 because older releases give up on 429."""
    return Refused(503, "rate_limit", "Too many connection attempts, try again later", retry_after_s=1)


def busy(retry_after_s: int) -> Refused:
    """Too many connect at this moment; a program that is told when to come back does not give up."""
    return Refused(503, "rate_limit", "Too many devices are connecting, try again later", retry_after_s)


def draining() -> Refused:
    """This portal is about to end; another one, or this one after its start, takes the connection."""
    return Refused(503, "draining", "This portal is about to end, try again", retry_after_s=1)


def limits_exceeded() -> Refused:
    """The account has more users or service accounts than it may."""
    return Refused(402, "limits_exceeded", "The account has exceeded its limits")


def gateway_connected() -> Refused:
    """This gateway has a live connection: the first one wins."""
    return Refused(409, "gateway_already_connected", "A gateway with this id is connected already")


def database_unavailable() -> Refused:
    """The database cannot be asked; components come back by themselves."""
    return Refused(503, "database_unavailable", "The portal cannot use its database, try again later", retry_after_s=5)


def unhandled() -> Refused:
    """Something unforeseen."""
    return Refused(500, "unhandled_connect_error", "The connection could not be set up")
