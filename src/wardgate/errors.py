"""The whole error hierarchy: everything that Wardgate raises on purpose."""

from collections.abc import Sequence
from dataclasses import dataclass


class WardgateError(Exception):
    """Base of everything raised on purpose."""


class ProtocolError(WardgateError):
    """A protocol was broken; never raised itself."""


class LocalProtocolError(ProtocolError):
    """Our code asked for what the protocol forbids: a bug, let it crash."""


class RemoteProtocolError(ProtocolError):
    """The other end broke the protocol: count, drop, carry on.

    Attributes:
        code: The STUN error code to answer, where the protocol has one.
    """

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class DomainError(WardgateError):
    """What the portal's rules refuse.

    Attributes:
        code: Names the rule for programs; all are listed in `docs/problems.md`.
        details: More about it, such as the limit that was reached.
    """

    code = "internal_error"

    def __init__(self, message: str, code: str | None = None, **details: object) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        self.details = details


class NotFound(DomainError):
    """The thing does not exist in this account."""

    code = "not_found"


class Forbidden(DomainError):
    """The subject may not do this."""

    code = "forbidden"


class Conflict(DomainError):
    """The change contradicts what is there."""

    code = "conflict"


class PolicyTestFailed(Conflict):
    """The change would break policy tests.

    Attributes:
        tests: What each of them says and, as examples, some pairs that it would be wrong about, as JSON.
    """

    code = "policy_test_failed"

    def __init__(self, tests: list[dict[str, object]]) -> None:
        names = ", ".join(f"\u201c{one['name']}\u201d" for one in tests)
        text = f"the change breaks what must stay true: {names}; to make it nevertheless, say why in X-Force-Reason"
        super().__init__(text, policy_tests=tests)
        self.tests = tests


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one field.

    Attributes:
        field: Its name; inside lists such as `filters[1].ports`.
        code: Names the rule for programs.
        accepted: What would be right, in words.
    """

    field: str
    message: str
    code: str = "invalid"
    accepted: str | None = None


class InvalidInput(DomainError):
    """A value was not acceptable.

    Attributes:
        fields: What was wrong, by field name; each a list of sentences.
        problems: The same for programs, in the same order.
    """

    code = "validation_failed"

    def __init__(self, fields: dict[str, list[str]], problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__("; ".join(f"{name} {text}" for name, texts in fields.items() for text in texts))
        self.fields = fields
        derived = (FieldProblem(name, text) for name, texts in fields.items() for text in texts)
        self.problems = tuple(problems) or tuple(derived)


def invalid(field: str, message: str, code: str = "invalid", accepted: str | None = None) -> InvalidInput:
    """The error for one field."""
    return InvalidInput({field: [message]}, [FieldProblem(field, message, code, accepted)])


class DatabaseUnavailable(DomainError):
    """The database is away, full, read-only or too busy: a later try may do."""

    code = "unavailable"


class InvalidBackup(WardgateError):
    """A file is not a backup, or is damaged, cut off or from a newer version; nothing was changed."""


class SettingError(WardgateError):
    """A setting is missing or wrong; programs end with exit status 2 and this text."""


class InterfaceLost(WardgateError):
    """The TUN interface or a socket is gone; the program opens it again."""


class LabError(WardgateError):
    """The lab could not build what was asked, or a program in it could not be started."""


class LabUnavailable(LabError):
    """This machine does not allow network namespaces here; the text says how to allow them."""
