"""mergetool schema prints what an editor reads."""

from __future__ import annotations

import json

from mergetool.recipe_kinds import schema
from tests.cli.shell import refusal, run


def test_a_schema_is_printed_as_json() -> None:
    assert json.loads(run("schema", "merge")[0]) == schema("merge")


def test_another_kind_is_refused_with_the_nearest_one() -> None:
    assert refusal("schema", "studdy") == "mergetool: no recipes of kind 'studdy'; did you mean 'study'?"
