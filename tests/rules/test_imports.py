"""Who may import whom: `CONTRIBUTING.md`, Layout, as tests."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "wardgate"
OUTSIDE_WORLD = {"asyncio", "socket", "ssl", "random", "secrets", "time"}
STATES = ("client/state", "gateway/state", "relay/state")

ALLOWED = {
    "wire": {"wire", "errors", "ids"},
    "proto": {"proto", "wire", "errors", "ids", "_fastpath"},
    "tunnel": {"tunnel", "proto", "wire", "errors", "ids", "_fastpath"},
}


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((SOURCE / folder).rglob("*.py"))]
    assert found, f"nothing to check in {folders}"
    return found


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def state_modules() -> list[Path]:
    return [
        path for path in modules("client", "gateway", "relay") if path.stem == "state" or path.stem.startswith("state_")
    ]


@pytest.mark.parametrize("path", [*modules("wire", "proto", "tunnel"), *state_modules()], ids=name_of)
def test_sans_io_modules_import_no_clock_no_socket_no_randomness(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & OUTSIDE_WORLD


@pytest.mark.parametrize("path", modules("wire", "proto", "tunnel"), ids=name_of)
def test_lower_layers_do_not_know_higher_ones(path: Path) -> None:
    layer = path.relative_to(SOURCE).parts[0]
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("wardgate.")}

    assert ours <= ALLOWED[layer]


@pytest.mark.parametrize("path", modules("portal"), ids=name_of)
def test_the_portal_keeps_its_doors_apart(path: Path) -> None:
    names = list(imports(path))
    place = path.relative_to(SOURCE / "portal").as_posix()
    ours = {name.split(".")[1] for name in names if name.startswith("wardgate.")}
    libraries = {name.split(".")[0] for name in names}

    outer = {"app.py": {"io"}, "main.py": {"io"}, "commands/base.py": {"logs"}, "server.py": {"io", "heap"}}
    assert ours <= {"portal", "wire", "errors", "ids", "__version__"} | outer.get(place, set())
    if place.startswith("domain/"):
        assert not libraries & {"sqlalchemy", "starlette", "fastapi"}
        assert not {name for name in names if name.startswith("wardgate.portal.db")}
    if not place.startswith(("db/", "services/", "main.py")):
        assert "sqlalchemy" not in libraries, "SQLAlchemy stays in db/ and services/"
