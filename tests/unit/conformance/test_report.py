"""What is written about results."""

import json

from conformance.lab import Lab
from conformance.registry import Requirement
from conformance.report import Column, as_json, line, markdown, summary
from conformance.runner import Result, Status


def nothing(_lab: Lab) -> None:
    """Checks nothing."""


FIRST = Requirement("8489-5-01", "MUST", "Two bits are zero.", nothing)
SECOND = Requirement("8656-7.2-01", "SHOULD", "A | in the text.", nothing)
OURS = Column("ours", [Result(FIRST, Status.PASS), Result(SECOND, Status.FAIL, "sent this; got that")])
THEIRS = Column(
    "theirs", [Result(FIRST, Status.NOT_TESTED, "--slow"), Result(SECOND, Status.NOT_APPLICABLE, "no IPv6")]
)


def test_table_has_a_row_for_each_requirement_and_a_column_for_each_server() -> None:
    written = markdown([OURS, THEIRS], "Made by hand.")

    assert "| 8489-5-01 | Two bits are zero. | MUST | pass | – |" in written
    assert "| 8656-7.2-01 | A \\| in the text. | SHOULD | **fail** | n/a |" in written
    assert written.index("## RFC 8489") < written.index("## RFC 8656") < written.index("## What failed")


def test_what_is_no_pass_is_explained() -> None:
    written = markdown([OURS, THEIRS], "Made by hand.")

    assert "- `8656-7.2-01`: sent this; got that" in written
    assert "- `8656-7.2-01`: no IPv6" in written
    assert "- `8489-5-01`: --slow" in written


def test_a_report_changes_only_when_a_server_does() -> None:
    details = [f"sent from {address}" for address in ("127.0.0.1:50001", "127.0.0.1:50002", "[::1]:50001")]
    columns = [Column("ours", [Result(FIRST, Status.FAIL, detail)]) for detail in details]

    first, second, third = (markdown([column], "Made by hand.") for column in columns)

    assert first == second
    assert "sent from [::1]:port" in third


def test_levels_are_counted_where_they_apply() -> None:
    written = markdown([OURS, THEIRS], "Made by hand.")

    assert "| MUST | 1 passed, 0 failed of 1 | 0 passed, 0 failed of 0 |" in written
    assert "| SHOULD | 0 passed, 1 failed of 1 | 0 passed, 0 failed of 0 |" in written


def test_json_has_everything() -> None:
    read = json.loads(as_json([OURS, THEIRS]))

    assert [column["server"] for column in read] == ["ours", "theirs"]
    assert read[0]["results"][1]["detail"] == "sent this; got that"


def test_terminal_has_a_line_for_a_pass_and_the_reason_beneath_else() -> None:
    assert line(OURS.results[0]).count("\n") == 0
    assert line(OURS.results[1]).endswith("sent this; got that")
    assert summary(OURS) == "ours: 1 pass, 1 fail; 0 MUST broken"
