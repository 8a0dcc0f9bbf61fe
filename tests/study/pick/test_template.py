"""The study as YAML reads back as the study; comments say what each part is for."""

from __future__ import annotations

import pytest
import yaml

from mergetool.errors import RecipeError
from mergetool.study.pick.template import COMMENTS, as_yaml, study_of
from mergetool.study.recipe.columns import DISTANCE, axes
from mergetool.study.recipe.study_recipe import make_study


def test_what_is_written_reads_back_with_a_comment_on_each_part() -> None:
    study = study_of(["lab:sft", "lab:rlhf"], ["lab:skills_test", "lab:text_test"], "lab:base", "lab:skills_train")
    text = as_yaml(study, "mergetool compare study.yaml OUT")
    assert yaml.safe_load(text) == study
    for key in COMMENTS:
        assert f"# {COMMENTS[key]}\n{key}:" in text
    recipe = make_study(study)
    assert [one.name for one in axes(recipe)] == ["skills_test.exact_match", "text_test.nll"]


def test_one_task_is_drawn_over_the_distance_from_the_first_model() -> None:
    recipe = make_study(study_of(["lab:sft", "lab:rlhf"], ["lab:skills_test"]))
    assert axes(recipe)[1] == DISTANCE


def test_further_models_are_inputs_beside_the_first_two() -> None:
    study = study_of(["lab:sft", "lab:rlhf", "lab:base"], ["lab:skills_test"])
    assert study["select"] == {"goal": "all", "inputs": ["C"]}
    with pytest.raises(RecipeError, match="one model is nothing to merge"):
        study_of(["lab:sft"], ["lab:skills_test"])
