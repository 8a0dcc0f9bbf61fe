"""Public names: each table of lazily loaded names says what editors see, and what can be called can be called in any order."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import mergetool

ROOT = Path(__file__).parent.parent
TABLES = {
    ".".join(file.parent.relative_to(ROOT).parts): file
    for file in sorted((ROOT / "mergetool").rglob("__init__.py"))
    if "lazy(__name__" in file.read_text()
}
NAMES = [(package, name) for package in TABLES for name in importlib.import_module(package)._LAZY]
CALLABLE = ["mergetool.merge", "mergetool.align", "mergetool.evaluate"]


def seen_by_editors(file: Path) -> set[str]:
    """The names that a package imports under ``if TYPE_CHECKING``."""
    blocks = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
    typed = next(block for block in blocks if isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING")
    return {alias.asname or alias.name for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_packages_with_public_names_are_found() -> None:
    rooms = ("merge", "optim", "align", "ama", "study")
    assert set(TABLES) >= {"mergetool", *(f"mergetool.{room}" for room in rooms)}


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[".".join(pair) for pair in NAMES])
def test_every_public_name_loads(package: str, name: str) -> None:
    module = importlib.import_module(package)
    found = getattr(module, name)
    assert found is getattr(importlib.import_module(package), name)
    home = importlib.import_module(module._LAZY[name])
    assert found is (home if home.__name__ == f"{package}.{name}" else getattr(home, name))
    assert name in dir(module)


@pytest.mark.parametrize("package", TABLES)
def test_the_table_what_editors_see_and_all_name_the_same(package: str) -> None:
    module = importlib.import_module(package)
    assert seen_by_editors(TABLES[package]) == set(module._LAZY)
    assert set(module.__all__) - {"__version__"} == set(module._LAZY)


@pytest.mark.parametrize("package", TABLES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'mrege'"):
        _ = importlib.import_module(package).mrege


@pytest.mark.parametrize("name", ["merge", "align", "compare", "evaluate", "check", "inspect"])
def test_each_verb_of_the_program_is_a_function_of_the_library(name: str) -> None:
    verb = getattr(mergetool, name)
    assert callable(verb)
    first = next(iter(inspect.signature(verb).parameters))
    assert first == ("model" if name in ("evaluate", "inspect") else "recipe")


ORDERS = {
    "the package alone": "import mergetool; f = mergetool.{name}",
    "the submodule first": "import mergetool.{name}; f = mergetool.{name}",
    "the submodule afterwards": "import mergetool; mergetool.{name}; import mergetool.{name}; f = mergetool.{name}",
    "the submodule under another name": "import mergetool.{name} as f; assert f.{inner}; import mergetool",
    "from the package": "from mergetool import {name} as f; import mergetool.{name}; assert mergetool.{name} is f",
    "a name of the submodule first": "from mergetool.{name} import {inner}; from mergetool import {name} as f",
    "a file of the submodule first": "import mergetool.{name}.recipe_or_run; from mergetool import {name} as f",
}
INNER = {"merge": ("plan_merge", "recipe"), "align": ("load_align_recipe", "recipe"), "evaluate": ("METRICS", "run")}


@pytest.mark.parametrize("name", INNER)
def test_a_verb_can_be_called_whatever_was_imported_before_it(name: str) -> None:
    """Each order in a process that has imported nothing of ours, forked from one that has torch already."""
    inner, file = INNER[name]
    code = (
        "import os, sys, inspect, pickle, torch\n"
        "for line in sys.stdin.read().splitlines():\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        names = {}\n"
        "        exec(line, names)\n"
        "        f = names['f']\n"
        f"        assert callable(f) and f is sys.modules['mergetool.{name}'], line\n"
        f"        assert list(inspect.signature(f).parameters) == list(inspect.signature(f.{name}).parameters), line\n"
        f"        assert pickle.loads(pickle.dumps(f)) is f and f.{inner} is not None, line\n"
        "        os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, line\n"
    )
    lines = "\n".join(order.format(name=name, inner=inner).replace("recipe_or_run", file) for order in ORDERS.values())
    found = subprocess.run([sys.executable, "-c", code], input=lines, text=True, capture_output=True, cwd=ROOT)
    assert found.returncode == 0, found.stderr


def test_a_pickle_of_a_verb_is_found_again_in_another_process() -> None:
    code = "import sys, pickle; print(callable(pickle.load(sys.stdin.buffer)))"
    for name in CALLABLE:
        data = pickle.dumps(importlib.import_module(name))
        found = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, cwd=ROOT, check=True)
        assert found.stdout.strip() == b"True"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, mergetool, mergetool.merge, mergetool.align, mergetool.optim, mergetool.study, mergetool.ama\n"
        "print([m for m in ('torch', 'numpy', 'transformers', 'pydantic', 'typer', 'yaml') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"
