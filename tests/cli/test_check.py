"""mergetool check says what a recipe would read and write, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mergetool
from mergetool.config.packaged import recipe_path
from tests.cli.shell import run


def test_check_says_what_would_be_read_and_written(recipe: Path) -> None:
    out, _ = run("check", recipe)
    assert "a valid merge recipe" in out
    facts = json.loads(run("check", recipe, "--json")[0])
    assert facts["kind"] == "merge"
    assert facts["bytes_read"] == 3 * facts["bytes_written"]


@pytest.mark.parametrize(("kind", "name"), [("merge", "ties"), ("align", "dpo-onties"), ("ama", "lab"), ("study", "demo")])
def test_check_json_is_what_the_library_returns(kind: str, name: str) -> None:
    path = recipe_path(kind, name)
    found = json.loads(run("check", path, "--json")[0])
    assert found["kind"] == kind
    assert found == json.loads(json.dumps(mergetool.check(path)))
