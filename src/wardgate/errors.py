"""The whole error hierarchy: everything that Wardgate raises on purpose."""


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


class NotFound(WardgateError):
    """The thing does not exist in this account."""


class Forbidden(WardgateError):
    """The subject may not do this."""


class Conflict(WardgateError):
    """The change contradicts what is there."""


class PolicyTestFailed(Conflict):
    """The change would break policy tests.

    Attributes:
        tests: What each of them says and, as examples, some pairs that it would be wrong about, as JSON.
    """

    code = "policy_test_failed"

    def __init__(self, tests: list[dict[str, object]]) -> None:
        names = ", ".join(f"\u201c{one['name']}\u201d" for one in tests)
        super().__init__(f"the change breaks what must stay true: {names}")
        self.tests = tests


class InvalidInput(WardgateError):
    """A value was not acceptable.

    Attributes:
        fields: What was wrong, by field name; each a list of sentences.
    """

    def __init__(self, fields: dict[str, list[str]]) -> None:
        super().__init__("; ".join(f"{name} {text}" for name, texts in fields.items() for text in texts))
        self.fields = fields


class SettingError(WardgateError):
    """A setting is missing or wrong; programs end with exit status 2 and this text."""


class InterfaceLost(WardgateError):
    """The TUN interface or a socket is gone; the program opens it again."""


class LabError(WardgateError):
    """The lab could not build what was asked, or a program in it could not be started."""


class LabUnavailable(LabError):
    """This machine does not allow network namespaces here; the text says how to allow them."""
