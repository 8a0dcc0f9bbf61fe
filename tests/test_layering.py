"""Imports only point down: the rooms of docs/architecture.md, read from the code itself."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "mergetool"

# A room may import rooms of a lower level, and itself; `ops` imports no room at all.
LEVEL = {
    "errors": 0, "exports": 0, "files": 0, "options": 0, "lab": 0, "reading": 0, "version": 0, "methods": 1,
    "config": 1, "architecture": 1, "ops": 1, "checkpoint": 2, "hub": 3, "data": 4, "fingerprints": 5, "activations": 6,
    "merge": 7, "optim": 7, "align": 8, "evaluate": 8, "ama": 9, "study": 10, "recipe_kinds": 11, "cli": 12, "__main__": 13,
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


def module_of(file: Path) -> str:
    """mergetool/merge/plan.py -> mergetool.merge.plan; a package's __init__.py -> the package."""
    parts = ["mergetool", *file.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_between_files() -> dict[str, dict[str, int]]:
    """File -> the files of the package that it imports, each with the first line: late imports and those for types count.

    ``from mergetool.merge import plan`` is an import of the file plan.py; of a name that is no file, of the package itself.
    """
    known = {module_of(file): file for file in PACKAGE.rglob("*.py")}
    edges: dict[str, dict[str, int]] = {}
    for module, file in known.items():
        edges[module] = {}
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in known else node.module for name in whole]
            for name in names:
                if name in known and name != module:
                    edges[module].setdefault(name, getattr(node, "lineno", 0))
    return edges


def circles(edges: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in edges[node]:
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in edges:
        if node not in number:
            visit(node)
    return found


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


def test_no_files_import_each_other_in_a_circle() -> None:
    edges = imports_between_files()
    told = [
        f"{module}:{line} imports {other}"
        for circle in circles(edges)
        for module in circle
        for other, line in edges[module].items()
        if other in circle
    ]
    assert not told, "\n".join(told)


def test_a_circle_is_found_where_there_is_one() -> None:
    chain = {"a": ["b"], "b": ["c"], "c": [], "d": ["a", "c"]}
    assert circles(chain) == []
    assert circles({**chain, "c": ["a"]}) == [["a", "b", "c"]]
    assert sorted(circles({"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["c"]})) == [["a", "b"], ["c", "d"]]


def test_the_graph_of_files_sees_late_imports_those_for_types_and_files_named_in_a_from() -> None:
    edges = imports_between_files()
    assert "mergetool.recipe_kinds" in edges["mergetool.cli.check"]  # within a function
    assert "mergetool.merge.run" in edges["mergetool"]  # under TYPE_CHECKING
    assert "mergetool.hub" in edges["mergetool.hub.fetch"]  # from mergetool import hub


def of_one_system(node: ast.AST) -> set[str]:
    """What a node uses that not every operating system has."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
        return names & {"fcntl", "msvcrt", "resource", "pwd", "grp", "termios"}
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
        calls = {"pread", "preadv", "pwrite", "pwritev", "fdatasync"}
        return {node.attr} if node.attr in calls or node.attr.startswith(("posix_", "sched_")) else set()
    return set()


def test_what_not_every_operating_system_has_is_used_in_one_file() -> None:
    told = [
        f"{file.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)} uses {name}"
        for file in files()
        if file != PACKAGE / "files.py"
        for node in ast.walk(ast.parse(file.read_text()))
        for name in sorted(of_one_system(node))
    ]
    assert not told, "\n".join(told)


def test_the_operators_import_torch_and_numpy_alone() -> None:
    import sys

    for file in (PACKAGE / "ops").rglob("*.py"):
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
