"""Imports only point down: the rooms of docs/architecture.md, read from the code itself."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "mergetool"

# A room may import rooms of a lower level, and itself; `ops` imports no room at all.
LEVEL = {
    "errors": 0, "methods": 0, "lab": 0, "config": 1, "architecture": 1, "ops": 1, "checkpoint": 2, "hub": 3, "data": 4,
    "fingerprints": 5, "merge": 6, "optim": 6, "align": 7, "evaluate": 7, "ama": 8, "study": 9, "cli": 10, "__main__": 11,
}  # fmt: skip


def imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module] if node.module != "mergetool" else [f"mergetool.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: relative import"
            continue
        rooms |= {n.split(".")[1] for n in names if n.startswith("mergetool.")}
    return rooms & set(LEVEL)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def files() -> list[Path]:
    return [f for f in sorted(PACKAGE.rglob("*.py")) if f != PACKAGE / "__init__.py"]


def test_every_room_has_a_level() -> None:
    assert {room_of(f) for f in files()} <= set(LEVEL)


def test_imports_only_point_down() -> None:
    upward = [
        f"{file.relative_to(PACKAGE)} imports {room}"
        for file in files()
        for room in imported_rooms(file)
        if room != room_of(file) and LEVEL[room] >= LEVEL[room_of(file)]
    ]
    assert not upward


def test_the_operators_import_torch_and_numpy_alone() -> None:
    import sys

    for file in (PACKAGE / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in filter(None, names):
                top = name.split(".")[0]
                assert top in ("torch", "numpy") or top in sys.stdlib_module_names or name.startswith("mergetool.ops"), (
                    f"{file.name} imports {name}"
                )


def test_only_the_command_line_prints_or_imports_typer() -> None:
    for file in files():
        if room_of(file) == "cli":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{file.relative_to(PACKAGE)}:{node.lineno} prints"
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any(n.split(".")[0] == "typer" for n in names), f"{file.relative_to(PACKAGE)} imports typer"


def test_no_room_is_called_utils_helpers_or_common() -> None:
    assert not {f.stem for f in files()} & {"utils", "util", "helpers", "common", "misc"}
