"""Tests mirror the package: mergetool/a/b.py has tests/a/test_b.py, so that one knows where a sentence about it stands."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "mergetool", ROOT / "tests"

# Rooms whose files do not all have a test file of their own yet: to be emptied.
NOT_YET: set[str] = set()


def place_of(file: Path) -> Path:
    """Where the tests of a file of the package belong; those of a package's own code have the package's name."""
    place = file.relative_to(PACKAGE)
    if file.name == "__init__.py":
        return TESTS / place.parent / f"test_{place.parent.name}.py"
    return TESTS / place.parent / f"test_{file.name}"


def expected() -> dict[Path, Path]:
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.name != "__main__.py"]
    return {file: place_of(file) for file in files if file.name != "__init__.py" or defines(file)}


def defines(file: Path) -> bool:
    """Whether a package's own file has code: a list of names is none."""
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(file.read_text()).body)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_file_of_the_package_has_a_test_file_of_its_own_name() -> None:
    missing = {
        str(file.relative_to(ROOT)): str(test.relative_to(ROOT))
        for file, test in expected().items()
        if not test.exists() and room_of(file) not in NOT_YET
    }
    assert not missing


def test_a_room_that_is_complete_is_not_excepted() -> None:
    incomplete = {room_of(file) for file, test in expected().items() if not test.exists()}
    assert incomplete >= NOT_YET, f"complete by now, so take them out of NOT_YET: {sorted(NOT_YET - incomplete)}"


def test_every_folder_of_tests_is_a_package_whose_modules_have_full_names() -> None:
    folders = {file.parent for file in TESTS.rglob("test_*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
