"""The page of rules names tests that are there."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "rules.md"


def test_every_rule_names_tests_that_are_there() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())

    assert [row for row in rows if "::" not in row and row != "| rule | test |"] == []
    assert len(named) > 60
    assert [(file, test) for file, test in named if test not in names_in(HERE / file)] == []


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
