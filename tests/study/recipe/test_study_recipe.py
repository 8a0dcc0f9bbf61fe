"""The study language is strict, and every grid point is an exact recipe."""

import pytest

from mergetool.errors import MergetoolError, RecipeError
from mergetool.study.recipe.check import check_study
from mergetool.study.recipe.columns import axes
from mergetool.study.recipe.study_recipe import make_study
from tests.study import tiny


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"candidate": []}, "did you mean 'candidates'"),
        ({"reward": {"metrics": ["reward_margn"], "data": {"validation": "a", "test": "b"}}}, "did you mean 'reward_margin'"),
        ({"reward": {"metrics": ["nll"], "data": {"validation": "a", "test": "b"}}}, "'nll' measures tax"),
        ({"candidates": [{"name": "x", "merge": {"merge_method": "linear"}}]}, "weight"),
        ({"candidates": [{"name": "x", "merge": {"merge_method": "linear", "weight": 1.5}}]}, "from 0 to 1"),
        ({"candidates": [{"name": "x"}]}, "exactly one"),
        ({"candidates": [{"name": "sft", "checkpoint": "sft"}]}, "rename"),
        ({"models": {"sft": "sft", "base": "base", "rlhf": {"align": "adam"}}}, "no align candidate is called 'adam'"),
        ({"models": {"sft": "sft", "base": "base"}}, "need models.rlhf"),
        ({"candidates": [{"name": "x", "merge": {"merge_method": "linaer", "weight": 0.5}}]}, "did you mean 'linear'"),
        (
            {"candidates": [{"name": "x", "merge": {"merge_method": "ties", "weight": 0.5, "densty": 0.5}}]},
            "did you mean 'density'",
        ),
        (
            {"candidates": [{"name": "x", "merge": {"merge_method": "linear", "weight": 0.5, "relative_to": "sft"}}]},
            "no meaning",
        ),
        ({"candidates": [{"name": "x", "checkpoint": "nowhere"}]}, "nowhere"),
        (
            {
                "tax": {
                    "name": "skills",
                    "metrics": ["nll"],
                    "data": {"validation": "skills_test.jsonl", "test": "skills_test.jsonl"},
                }
            },
            "in the validation split too",
        ),
        (
            {"tax": {"name": "skills", "metrics": ["nll"], "data": {"validation": "none.jsonl", "test": "none.jsonl"}}},
            "no such file",
        ),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line_before_anything_runs(folder, change, says):
    with pytest.raises(MergetoolError) as caught:
        check_study(tiny.study(folder, **change))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_is_read_without_torch():
    """`mergetool check` names a misspelt key at once, and not after the seconds that torch takes."""
    import subprocess
    import sys

    from mergetool.config.packaged import recipe_path

    path = str(recipe_path("study", "early-stopping"))
    code = f"import sys, mergetool.study as s; s.load_study_recipe({path!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_gain_and_keep_are_the_axes_for_any_metric(folder):
    given = tiny.mapping()
    nll, pairs = given.pop("tax"), given.pop("reward")
    study = make_study({**given, "gain": nll, "keep": pairs, "select": {"keep_gain": 0.8}}, "study.yaml", folder)
    assert [one.name for one in axes(study)] == ["skills.nll", "pairs.preference_accuracy"]
    assert study.select.keep_reward == 0.8
    for wrong, told in (
        ({**given, "reward": pairs, "gain": nll, "tax": nll}, "two words for one axis"),
        ({**given, "gain": nll}, "tax is required, but missing"),
        ({**given, "reward": nll, "tax": nll}, "'nll' measures tax; move it there, or write `gain:` for reward:"),
        ({**given, "gain": nll, "keep": pairs, "select": {"keep_gain": 1, "keep_reward": 1}}, "two words for one thing"),
    ):
        with pytest.raises(RecipeError, match=told):
            make_study(wrong, "study.yaml", folder)
