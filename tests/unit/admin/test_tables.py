"""The tables that people read: aligned, and nothing cut."""

from typing import Any
from uuid import UUID

from wardgate.admin.main import table_lines

ROWS: list[dict[str, Any]] = [
    {
        "id": str(UUID(int=1)),
        "name": "a resource with quite a long name " * 5,
        "filters": [{"protocol": "tcp", "ports": ["80"]}],
    },
    {"id": str(UUID(int=2)), "name": None, "filters": []},
]


def test_no_cell_is_cut_and_columns_stand_below_each_other() -> None:
    head, *lines = table_lines(ROWS, ["id", "filters", "name"])

    assert [line.split("  ")[0] for line in lines] == [row["id"] for row in ROWS]
    assert {line.index(word) for line, word in zip(lines, ("tcp:80", "everything"), strict=True)} == {
        head.index("filters")
    }
    assert lines[0].endswith(str(ROWS[0]["name"]).rstrip())
    assert lines[1].endswith("  -")


def test_a_table_without_rows_is_its_head() -> None:
    assert table_lines([], ["id", "name"]) == ["id  name"]
