"""A kind of candidate is a class and a row of one table; nobody outside compares its name."""

import ast
from pathlib import Path

import pytest

import mergetool.study
from mergetool.cli import compare
from mergetool.errors import MergetoolError
from mergetool.study.candidates.candidate import Candidate
from mergetool.study.candidates.kinds import KINDS, OF_ROW, CandidateEntry
from tests.study import tiny


def test_results_know_the_kinds_by_the_names_that_they_always_had():
    assert list(OF_ROW) == ["model", "along", "merge", "align", "ama", "checkpoint", "soup"]
    assert all(one.kind == kind for kind, one in OF_ROW.items())
    assert {kind: one.command for kind, one in OF_ROW.items() if one.command} == {
        "merge": "merge",
        "align": "align",
        "ama": "merge",
        "soup": "merge",
    }


def test_every_key_of_the_table_is_a_key_of_the_recipe():
    assert set(CandidateEntry.model_fields) == {"name", "family", "search", *KINDS}
    entry = CandidateEntry.model_validate({"name": "x", "merge": {"merge_method": "linear", "weight": 0.5}})
    assert (entry.key, entry.candidate_class, entry.grid.weight) == ("merge", KINDS["merge"], 0.5)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"checkpoint": "sft", "recipe": "r.yaml"}, "has checkpoint and recipe of merge, align, ama, checkpoint, recipe"),
        ({"ama": {"alpha": 0.5}, "search": {"trials": 3}}, "has a search and neither merge nor align"),
        ({"mrge": {}}, "did you mean 'merge'"),
        ({"align": {"method": "adamw", "beta": [0.1, 0.2], "checkpoints": [1]}, "search": {"trials": 3}}, "both search and"),
    ],
)
def test_a_line_of_no_kind_or_of_two_is_said_in_one_line(tmp_path, entry, says):
    with pytest.raises(MergetoolError) as caught:
        tiny.study(tmp_path, candidates=[{"name": "x", **entry}])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_code_of_a_study_compares_the_name_of_a_kind():
    """`one.kind == "merge"` outside of its class is how a new kind would be forgotten in one of twenty places."""
    names = {one.kind for one in OF_ROW.values()}
    files = [*Path(mergetool.study.__file__).parent.rglob("*.py"), Path(compare.__file__)]
    found = [
        f"{file.name}:{node.lineno}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if _is_kind(side) and _words(node) & names
    ]
    assert not found


def _is_kind(node):
    """`one.kind`, or `row["kind"]`."""
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value == "kind"
    return isinstance(node, ast.Attribute) and node.attr in ("kind", "key")


def _words(node):
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}


def test_a_kind_answers_whatever_it_is_asked():
    for one in OF_ROW.values():
        assert issubclass(one, Candidate)
        assert not one.__abstractmethods__
        assert one.counted in (None, "trainings", "merges")
