"""The first look at a server: is it there, does it speak TURN, does it take our credentials."""

from conformance import wire
from conformance.lab import Facts, Lab, Target
from conformance.links import Unreachable
from conformance.registry import Failed
from conformance.wire import Draft


class Refused(Exception):
    """The server does not take the credentials it was given."""


def look(target: Target) -> Facts:
    """Finds out what can be tested.

    Raises:
        Unreachable: Nothing answers there.
        Refused: The server answers 401 to our credentials.
    """
    lab = Lab(target, Facts())
    try:
        return _look(lab, target)
    except Failed as error:
        raise Unreachable(f"{target.server} answers, but no STUN: {error}") from error
    finally:
        lab.close()


def _look(lab: Lab, target: Target) -> Facts:
    client = lab.client()
    binding = client.ask(Draft(wire.BINDING))
    unsigned = client.ask(Draft(wire.ALLOCATE).transport())
    if unsigned.answer is None and binding.answer is None:
        over = target.transport.upper()
        raise Unreachable(f"no answer from {target.server} over {over}, neither to Binding nor to Allocate requests")
    if unsigned.answer is None:
        return Facts(no_turn="the server does not answer Allocate requests")
    if unsigned.answer.message_class == wire.SUCCESS:
        lab.facts = Facts(authenticates=False)
        return lab.facts
    if unsigned.answer.error_code != 401:
        return Facts(
            no_turn=f"an Allocate request without credentials is answered {unsigned.answer.error_code}, not 401"
        )
    if not target.users.given:
        return Facts(no_turn="needs credentials: --username and --password, or --secret", untested=True)
    signed = client.ask_signed(Draft(wire.ALLOCATE).transport())
    if signed.answer is not None and signed.answer.error_code in (401, 441):
        raise Refused(f"{target.server} answers {signed.answer.error_code} to our credentials")
    if signed.answer is None or signed.answer.message_class != wire.SUCCESS:
        return Facts(no_turn=f"an Allocate request with our credentials gets {signed.answer or 'no answer'}")
    return Facts()
