"""The conformance suite against coturn: what it does right passes, and its known deviation is found."""

import shutil
from collections.abc import Iterator

import pytest
from conformance import preflight, runner, servers
from conformance.credentials import User, static_users
from conformance.lab import Target
from conformance.registry import all_requirements
from conformance.runner import Status

pytestmark = pytest.mark.interop

SELECTION = [
    *("8489-5-04", "8489-6.3.1-02", "8489-14.2-01", "8489-14.2-02", "8489-14.7-02", "8489-9.2.4-12", "8489-9.2.4-16"),
    *("8489-9.2.4-21", "8656-5-01", "8656-5-06", "8656-7.2-02", "8656-7.2-15", "8656-7.2-30", "8656-8.2-06"),
    *("8656-9-01", "8656-9-03", "8656-11.2-02", "8656-11.3-02", "8656-12.2-09", "8656-12.6-03", "8656-12.7-01"),
]


@pytest.fixture(scope="module")
def coturn() -> Iterator[Target]:
    if shutil.which("turnserver") is None:
        pytest.fail("not installed: coturn (apt-get install coturn)", pytrace=False)
    with servers.start_coturn() as running:
        yield running.target


def test_what_coturn_does_right_passes(coturn: Target) -> None:
    chosen = [each for each in all_requirements() if each.id in SELECTION]

    results = runner.run(chosen, coturn, preflight.look(coturn))

    assert len(results) == len(SELECTION)
    assert [(result.requirement.id, result.detail) for result in results if result.status != Status.PASS] == []


def test_what_coturn_does_in_another_way_fails(coturn: Target) -> None:
    forged_token = [each for each in all_requirements() if each.id == "8656-7.2-32"]

    (result,) = runner.run(forged_token, coturn, preflight.look(coturn))

    assert result.status == Status.FAIL
    assert "expected 508" in result.detail


def test_a_wrong_password_ends_the_run_with_one_error(coturn: Target) -> None:
    target = Target(coturn.server, static_users(User("conformance", "wrong")), "127.0.0.1")

    with pytest.raises(preflight.Refused, match="answers 401 to our credentials"):
        preflight.look(target)
