"""A recipe says what it means, or one line says what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mergetool.align import align_recipe, load_align_recipe, override
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.training import training_config
from mergetool.errors import RecipeError

LEAST = {"sft_model": "sft", "data": {"train": "rows.jsonl"}}


def problem(**parts: object) -> str:
    with pytest.raises(RecipeError) as caught:
        align_recipe({**LEAST, **parts}, source="r.yaml")
    return str(caught.value)


def test_the_least_recipe_is_plain_dpo() -> None:
    recipe = align_recipe(LEAST)
    assert (recipe.algorithm, recipe.beta, recipe.merging.method, recipe.dtype) == ("dpo", 0.1, "adamw", "float32")


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"merging": {"densty": 0.5}}, "r.yaml: merging.densty: unknown key; did you mean 'density'?"),
        ({"algorithm": "dpoo"}, "r.yaml: algorithm: 'dpoo' is not known; did you mean 'dpo'?"),
        ({"merging": {"method": "ondair"}}, "r.yaml: merging.method: 'ondair' is not known; did you mean 'ondare'?"),
        ({"merging": {"method": "ondare", "density": 0}}, "r.yaml: merging.density: should be greater than 0, not 0"),
        ({"merging": {"method": "adamw", "density": 0.5}}, "'density' is not an option of method adamw"),
        ({"merging": {"method": "ondare", "elect": "weighted"}}, "'elect' is not an option of method ondare"),
        ({"merging": {"method": "onlinear", "alpha": 0.1, "alpha_total": 0.2}}, "keep one of them"),
        ({"merging": {"method": "ondare"}}, "ondare needs to know how much to merge; give alpha"),
        ({"merging": {"method": "ondare", "every": 0}}, "merging.every"),
        ({"merging": {"method": "ondare", "every": "never"}}, "merging.every"),
        ({"merging": {"method": "ondare", "alpha": 1e-6}}, "base_model is missing, and ondare merges sft - base; add"),
        ({"merging": {"method": "replay"}}, "replay needs to know what should stay; add `rows: {data: ...}`"),
        ({"merging": {"method": "l2", "rows": {"data": "r.jsonl"}}}, "'rows' is not an option of method l2"),
        (
            {"merging": {"method": "replay", "rows": {"data": "r.jsonl", "limt": 3}}},
            "merging.rows.limt: unknown key; did you mean 'limit'?",
        ),
        ({"merging": {"method": "replay", "lambd": 3}}, "merging.lambd: unknown key; did you mean 'lambda'?"),
        ({"merging": {"method": "replay", "lambda": -1}}, "merging.lambda: should be greater than or equal to 0, not -1"),
        ({"beta": "strong"}, "r.yaml: beta: should be a valid number, not 'strong'"),
        ({"beta": float("nan")}, "r.yaml: beta"),
        ({"beta": 0}, "beta is 0, and dpo divides by it or learns nothing; give more than 0"),
        ({"algorithm": "distillation"}, "policy is missing, and distillation teaches a policy what the SFT model does; add"),
        ({"policy": "rlhf"}, "policy is given, and dpo starts from the SFT model; remove it"),
        ({"algorithm": "reward", "reward": "r.py:f"}, "reward is given, and reward samples no answers; remove it"),
        (
            {"algorithm": "reward", "merging": {"method": "ewc", "rows": {"data": "r.jsonl"}}},
            "merging.method: ewc keeps what a model writes, and reward trains a model that writes nothing; take another",
        ),
        ({"data": {}}, "r.yaml: data.train: required, but missing; add `train:`"),
        ({"data": "rows.jsonl"}, "r.yaml: data: should be a mapping"),
        ({"training": {1: 2}}, "r.yaml: training"),
    ],
)
def test_a_mistake_is_one_line_with_place_and_next_step(parts: dict, says: str) -> None:
    text = problem(**parts)
    assert says in text
    assert "\n" not in text


def test_lambda_is_written_and_read_under_its_own_name() -> None:
    merging = {"method": "replay", "rows": {"data": "r.jsonl", "limit": 3}, "lambda": 2.0}
    recipe = align_recipe({**LEAST, "merging": merging})
    assert recipe.as_written()["merging"] == merging
    assert recipe.merging.given() == {"rows": {"data": "r.jsonl", "limit": 3}, "lambda": 2.0}
    assert override(recipe, merging={"lambda": 3}).merging.lambda_ == 3


def test_methods_without_a_delta_need_no_base() -> None:
    for merging in ({"method": "onlinear", "alpha": 1e-3}, {"method": "childtuning"}, {"method": "ondare", "alpha": 0}):
        assert not align_recipe({**LEAST, "merging": merging}).merging.needs_base


def test_paths_start_from_the_recipes_own_directory(tmp_path) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "r.yaml"
    path.write_text(yaml.safe_dump({"sft_model": "../sft", "data": {"train": "rows.jsonl", "eval": "org/set:test"}}))
    recipe = load_align_recipe(path)
    assert recipe.sft == tmp_path / "deep" / "../sft"
    assert recipe.train_data == tmp_path / "deep" / "rows.jsonl"
    assert recipe.eval_data == "org/set:test"
    assert recipe.sft_model == "../sft"


def test_a_plain_exponent_is_a_number_in_training_too(tmp_path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("sft_model: s\ndata: {train: t.jsonl}\ntraining: {learning_rate: 1e-6}\n")
    assert load_align_recipe(path).training == {"learning_rate": 1e-6}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_written_of_a_recipe_is_the_same_recipe(tmp_path, algorithm: str) -> None:
    """A `beta` that nobody gave would be refused of SFT, and would give GRPO a KL term."""
    row = ALGORITHMS[algorithm]
    more = ({"reward": "rewards.py:f"} if row.rewarded else {}) | ({"policy": "small"} if row.taught else {})
    for given in ({}, {"beta": 0.3}) if row.beta else ({},):
        made = align_recipe({"sft_model": "sft", "algorithm": algorithm, "data": {"train": "rows.jsonl"}, **more, **given})
        again = align_recipe(made.as_written())
        configs = [training_config(one, tmp_path) for one in (made, again)]
        assert getattr(configs[0], "beta", None) == getattr(configs[1], "beta", None)


def test_an_override_keeps_the_rest_and_is_checked_again() -> None:
    merging = {"method": "ondare", "alpha": 0, "density": 0.1}
    recipe = align_recipe({**LEAST, "base_model": "b", "merging": merging}, "/there")
    changed = override(recipe, merging={"every": 5}, training={"seed": 3}, beta=0.2)
    assert changed.merging.given() == {"density": 0.1, "alpha": 0, "every": 5}
    assert (changed.training, changed.beta, changed.sft) == ({"seed": 3}, 0.2, Path("/there/sft"))
    assert override(recipe, merging={"method": "adamw"}).merging.given() == {}
    with pytest.raises(RecipeError, match="did you mean 'every'"):
        override(recipe, merging={"evry": 5})


def test_reading_a_recipe_needs_no_torch() -> None:
    code = "import sys, mergetool.align; sys.exit(bool({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
