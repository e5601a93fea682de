"""Runs requirements against one server, one after the other; those that wait for expiry all at once."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from conformance.lab import Facts, Lab, Target, stopping
from conformance.registry import Failed, NotApplicable, NotTested, Requirement


class Status(StrEnum):
    """What became of a requirement."""

    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Result:
    """One requirement at one server; `detail` says why it is not a pass."""

    requirement: Requirement
    status: Status
    detail: str = ""
    seconds: float = 0.0

    @property
    def is_broken_must(self) -> bool:
        return self.status == Status.FAIL and self.requirement.level == "MUST"


def run(
    requirements: Iterable[Requirement],
    target: Target,
    facts: Facts,
    *,
    slow: bool = False,
    report: Callable[[Result], None] = lambda _result: None,
) -> list[Result]:
    """Results in the order of the requirements; `report` hears of each as it is there."""
    results: dict[str, Result] = {}
    waiting: list[Requirement] = []
    chosen = list(requirements)
    for requirement in chosen:
        if requirement.slow and slow:
            waiting.append(requirement)
            continue
        results[requirement.id] = check(requirement, target, facts, slow=slow)
        report(results[requirement.id])
    for result in _check_at_once(waiting, target, facts):
        results[result.requirement.id] = result
        report(result)
    return [results[requirement.id] for requirement in chosen]


def check(requirement: Requirement, target: Target, facts: Facts, *, slow: bool = False) -> Result:
    """Runs one requirement."""
    started = time.monotonic()
    lab = Lab(target, facts)
    try:
        _look_whether_it_can_run(requirement, target, facts, slow)
        requirement.check(lab)
        status, detail = Status.PASS, ""
    except Failed as error:
        status, detail = Status.FAIL, str(error)
    except NotApplicable as error:
        status, detail = Status.NOT_APPLICABLE, str(error)
    except NotTested as error:
        status, detail = Status.NOT_TESTED, str(error)
    except Exception as error:  # a server's answer must not end the run, whatever is in it
        status, detail = Status.FAIL, f"the check broke off: {type(error).__name__}: {error}"
    finally:
        lab.close()
    return Result(requirement, status, " ".join(detail.split()), time.monotonic() - started)


def _look_whether_it_can_run(requirement: Requirement, target: Target, facts: Facts, slow: bool) -> None:
    if requirement.over == "udp" and target.transport != "udp":
        raise NotTested("concerns UDP only: --transport udp")
    if requirement.over == "stream" and target.transport == "udp":
        raise NotTested("concerns TCP and TLS only: --transport tcp")
    if requirement.slow and not slow:
        raise NotTested("takes minutes: --slow")
    if requirement.turn and facts.no_turn:
        raise (NotTested if facts.untested else NotApplicable)(facts.no_turn)


def _check_at_once(requirements: list[Requirement], target: Target, facts: Facts) -> Iterator[Result]:
    if not requirements:
        return
    with ThreadPoolExecutor(len(requirements)) as pool:
        try:
            yield from pool.map(lambda requirement: check(requirement, target, facts, slow=True), requirements)
        except BaseException:
            stopping.set()
            raise
