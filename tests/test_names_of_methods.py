"""A method's, sparsifier's, consensus', optimizer's, baseline's or algorithm's name is compared in the table that owns it
and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.baselines import BASELINES
from mergetool.methods import METHODS, ONLINE, TRAININGS
from mergetool.ops.rescale import RESCALES

PACKAGE = Path(__file__).parent.parent / "mergetool"
NAMES = {
    *METHODS, *ONLINE, *TRAININGS, *RESCALES, *BASELINES,
    *(name for name in ALGORITHMS if name not in ("sft", "reward")),  # a model and the side of a study too
    *(method.sparsifier.name for method in METHODS.values()), *(method.consensus.name for method in METHODS.values()),
    *(online.optimizer for online in ONLINE.values()),
}  # fmt: skip
# Words of other programs' files that happen to be names of ours.
OTHERS = {("checkpoint/lora.py", "none"), ("merge/planner.py", "lora")}  # PEFT's `bias: none`, mergekit's `lora:` of a model


TABLES = [*sorted((PACKAGE / "methods").glob("*.py")), PACKAGE / "align/algorithms.py", PACKAGE / "align/baselines.py"]


def compared_words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, word) of every text that something is compared with: ==, !=, in, `case`, startswith and the like."""
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("startswith", "endswith")
        ):
            parts = list(node.args)
        for part in parts:
            inner = part.elts if isinstance(part, ast.Tuple | ast.List | ast.Set) else [part]
            if isinstance(part, ast.Call) and part.args:  # frozenset({...}), set([...])
                inner = [i for a in part.args for i in (a.elts if isinstance(a, ast.Tuple | ast.List | ast.Set) else [])]
            yield from (
                (one.lineno, one.value) for one in inner if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )


def found_in(text: str) -> list[str]:
    return [word for _, word in compared_words(ast.parse(text)) if word in NAMES]


@pytest.mark.parametrize(
    "code",
    [
        'x == "dare"', '"onties" != method', 'kind in ("linear", "slerp")', 'm not in {"random"}', 'm in frozenset(["adamw"])',
        'match m:\n    case "ties": pass', 'name.startswith("dare_ties")',
    ],
)  # fmt: skip
def test_the_scan_sees_a_comparison_in_every_form(code: str) -> None:
    assert found_in(code)


def test_the_scan_lets_other_words_pass() -> None:
    assert not found_in('a == "cpu"; row("dare_linear"); {"ties": 1}["ties"]; m in METHODS')


def test_no_name_of_a_method_is_compared_outside_of_the_table() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{line} compares with '{word}': ask the row of its table"
        for file in sorted(PACKAGE.rglob("*.py"))
        if file not in TABLES
        for line, word in compared_words(ast.parse(file.read_text()))
        if word in NAMES and (file.relative_to(PACKAGE).as_posix(), word) not in OTHERS
    ]
    assert not found
