"""That the suite can fail: servers that are wrong in one way each, and one that is right."""

from pathlib import Path

import pytest
from conformance import preflight, runner
from conformance.__main__ import main
from conformance.credentials import Users
from conformance.deliberate import DELIBERATE, surprises
from conformance.lab import Facts, Target
from conformance.links import Unreachable
from conformance.registry import all_requirements
from conformance.runner import Result, Status
from conformance.wire import Address

from tests.unit.conformance import wrong_server
from tests.unit.conformance.wrong_server import Answer, serving

STUN_ONLY = Facts(no_turn="a server of this test speaks no TURN")


@pytest.mark.parametrize(
    ("answer", "failing"),
    [
        (wrong_server.ignores_unknown_attributes, "8489-6.3.1-02"),
        (wrong_server.ignores_unknown_attributes, "8489-6.3.1-03"),
        (wrong_server.ignores_unknown_attributes, "8489-6.3.2-01"),
        (wrong_server.ignores_unknown_attributes, "8489-6.3-08"),
        (wrong_server.ignores_unknown_attributes, "8489-14.7-02"),
        (wrong_server.answers_with_another_transaction_id, "8489-5-04"),
        (wrong_server.answers_with_another_port, "8489-14.2-01"),
        (wrong_server.sends_a_wrong_length, "8489-5-03"),
        (wrong_server.sends_a_wrong_length, "8489-6.3.1.1-01"),
        (wrong_server.echoes, "8489-5-05"),
        (wrong_server.echoes, "8489-6.3-01"),
        (wrong_server.echoes, "8489-6.3-10"),
        (wrong_server.is_deaf, "8489-12-01"),
    ],
)
def test_what_is_wrong_fails(answer: Answer, failing: str) -> None:
    with serving(answer) as server:
        result = run(server, failing)

    assert result.status == Status.FAIL
    assert result.detail


@pytest.mark.parametrize(
    "id_", [each.id for each in all_requirements() if not each.turn and each.level == "MUST" and each.over != "stream"]
)
def test_what_is_right_passes(id_: str) -> None:
    with serving(wrong_server.right) as server:
        result = run(server, id_)

    assert result.status in (Status.PASS, Status.NOT_APPLICABLE, Status.NOT_TESTED), result.detail


def test_what_is_broken_on_purpose_surprises_only_when_it_is_mended() -> None:
    by_id = {each.id: each for each in all_requirements()}
    expected, other = by_id["8656-12.2-04"], by_id["8489-5-04"]

    assert surprises([Result(expected, Status.FAIL, "got success"), Result(other, Status.PASS, "")]) == []
    (mended,) = surprises([Result(expected, Status.PASS, "")])
    assert "no more" in mended
    (broken,) = surprises([Result(other, Status.FAIL, "got another id")])
    assert broken == "8489-5-04 fails, and not on purpose: got another id"


def test_every_deliberate_failure_is_one_of_the_requirements() -> None:
    assert set(DELIBERATE) <= {each.id for each in all_requirements()}


def test_a_failure_says_what_was_sent_and_what_came() -> None:
    with serving(wrong_server.ignores_unknown_attributes) as server:
        result = run(server, "8489-6.3.1-02")

    assert (
        result.detail == "sent Binding request with 0x7f01; expected 420, got Binding success with XOR-MAPPED-ADDRESS"
    )
    assert result.is_broken_must


def test_without_turn_nothing_of_turn_is_tested() -> None:
    with serving(wrong_server.right) as server:
        facts = preflight.look(target(server))
        result = run(server, "8656-7.2-02", facts)

    assert facts.no_turn
    assert result.status == Status.NOT_APPLICABLE


def test_what_takes_minutes_and_what_concerns_streams_is_left_out() -> None:
    assert run(Address("127.0.0.1", 9), "8656-9-07", Facts()).status == Status.NOT_TESTED
    assert run(Address("127.0.0.1", 9), "8489-6.2.2-01", Facts()).status == Status.NOT_TESTED


def test_a_deaf_server_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(wrong_server.is_deaf) as server, pytest.raises(Unreachable, match=r"no answer from 127\.0\.0\.1"):
        preflight.look(target(server))

    assert main(["--server", "127.0.0.1:9", "--transport", "tcp"]) == 2
    assert "does not take TCP connections" in capsys.readouterr().err


def test_exit_status_tells_whether_a_must_failed(tmp_path: Path) -> None:
    chosen = ["--quiet", "--only", "8489-5-0*", "--only", "8489-6.3.1-02", "--json", str(tmp_path / "results.json")]

    with serving(wrong_server.right) as server:
        assert main(["--server", str(server), *chosen]) == 0
    with serving(wrong_server.ignores_unknown_attributes) as server:
        assert main(["--server", str(server), *chosen]) == 1

    assert '"id": "8489-6.3.1-02"' in (tmp_path / "results.json").read_text()


def test_ids_are_of_the_two_rfcs_and_there_are_many() -> None:
    requirements = all_requirements()

    assert {each.rfc for each in requirements} == {"8489", "8656"}
    assert len(requirements) > 250
    assert all(each.text.endswith(".") and len(each.text) <= 110 for each in requirements)


def run(server: Address, id_: str, facts: Facts = STUN_ONLY) -> Result:
    requirement = next(each for each in all_requirements() if each.id == id_)
    return runner.check(requirement, target(server), facts)


def target(server: Address) -> Target:
    return Target(server, Users(), "127.0.0.1", answer_s=0.1, silence_s=0.05)
