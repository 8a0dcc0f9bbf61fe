"""Every line that pick proposes is one that a study takes, and each needs no more than what was given."""

from __future__ import annotations

import pytest

from mergetool.study.pick.candidates import candidates_of, names_of
from mergetool.study.recipe.expand import expand
from tests.study import tiny


@pytest.mark.parametrize("others", [[], ["base"]])
@pytest.mark.parametrize("base", [False, True])
@pytest.mark.parametrize("stay", [False, True])
def test_what_is_proposed_can_be_made_of_what_is_given(folder, others, base, stay) -> None:
    models = {"sft": "sft", "rlhf": "rlhf", **({"base": "base"} if base else {})}
    changes = {"calibration": {"data": "skills_test.jsonl"}} if stay else {}
    study = tiny.study(folder, models=models, candidates=candidates_of(others, base, stay), **changes)
    candidates = expand(study)
    for one in candidates:
        one.check({name: str(source) for name, source in study.sources().items()})
    methods = {one.recipe["merge_method"] for one in candidates if one.recipe}
    assert ("ties" in methods) == base
    assert ("null_space" in methods) == (stay and not others)
    assert [one.name for one in candidates if one.family == "inputs"] == names_of(others)
