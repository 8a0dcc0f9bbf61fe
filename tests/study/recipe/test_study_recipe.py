"""The study language is strict, and every grid point is an exact recipe."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study.candidates.offline_recipe import merge_recipe
from mergetool.study.candidates.rlhf import rlhf_group
from mergetool.study.recipe.check import check_study
from mergetool.study.recipe.expand import expand
from tests.study import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.triple(tmp_path_factory.mktemp("triple"))


def align(**changes):
    return {"name": "adamw", "align": {"method": "adamw", "seed": [0, 1]}, **changes}


def test_lists_multiply_and_seeds_share_a_group(folder):
    study = tiny.study(
        folder,
        models={"base": "base", "sft": "sft", "rlhf": {"align": "adamw"}},
        candidates=[
            align(),
            {"name": "ondare", "align": {"method": "ondare", "every": [1, "total"], "density": 0.1, "seed": [0, 1]}},
            {"name": "ties", "merge": {"merge_method": "ties", "weight": [0.3, 0.7], "density": [0.2, 0.8]}},
        ],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    found = expand(study)
    assert len(found) == 2 + 2 + 4 + 2 * 4
    assert rlhf_group(study, found) == "adamw"
    groups = list(dict.fromkeys(one.group for one in found))
    assert groups[:5] == ["sft", "base", "adamw", "ondare K=1", "ondare K=total"]
    assert len(groups) == 5 + 4
    merged = next(one for one in found if one.name == "ties w=0.3 density=0.8 seed=1".replace("density", "p"))
    assert merged.needs == "adamw seed=1"
    ondare = next(one for one in found if one.name == "ondare K=total seed=1")
    assert ondare.recipe["merging"] == {"method": "ondare", "every": "total", "density": 0.1, "seed": 1}
    assert ondare.recipe["training"]["seed"] == 1


def test_weight_is_the_share_of_rlhf_and_alpha_the_share_of_sft(folder):
    by = {}
    for key, value in (("weight", 0.7), ("alpha", 0.3)):
        study = tiny.study(folder, candidates=[{"name": "l", "merge": {"merge_method": "linear", key: value}}])
        by[key] = expand(study)[-1].recipe
    assert by["weight"] == by["alpha"]
    assert by["weight"]["models"] == [
        {"model": "SFT", "parameters": {"weight": 0.3}},
        {"model": "RLHF", "parameters": {"weight": 0.7}},
    ]


def test_deltas_start_from_base_or_where_alignment_started():
    paper = merge_recipe("ties", 0.7, density=0.5)
    assert paper["base_model"] == "BASE"
    assert [entry.get("relative_to") for entry in paper["models"]] == [None, None]
    online = merge_recipe("dare_linear", 0.7, "sft", density=0.5)
    assert online["base_model"] == "SFT"
    assert [(entry["model"], entry["relative_to"]) for entry in online["models"]] == [("RLHF", "SFT"), ("SFT", "BASE")]


def test_what_alignment_added_can_be_merged_alone(folder):
    study = tiny.study(
        folder,
        candidates=[
            {"name": "t", "merge": {"merge_method": "ties", "relative_to": "sft", "weight": 0.7, "alpha": 0, "density": 0.2}}
        ],
    )
    recipe = expand(study)[-1].recipe
    assert recipe["base_model"] == "SFT"
    assert recipe["models"] == [{"model": "RLHF", "relative_to": "SFT", "parameters": {"weight": 0.7, "density": 0.2}}]


def test_slerp_has_a_place_between_sft_and_rlhf():
    assert merge_recipe("slerp", 0.25)["parameters"] == {"t": 0.25}


def test_a_sound_study_is_checked_from_headers(folder):
    found = check_study(tiny.study(folder))
    assert found["merges"] == 4
    assert found["rows"] == {"pairs": {"validation": 12, "test": 12}, "skills": {"validation": 12, "test": 12}}


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


def test_an_align_candidate_is_checked_by_the_align_room(folder):
    study = tiny.study(
        folder,
        candidates=[{"name": "o", "align": {"method": "ondare", "densty": 0.5}}],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    with pytest.raises(MergetoolError, match=r"candidate 'o'.*did you mean 'density'"):
        check_study(study)


def test_an_algorithm_gets_the_reward_and_the_beta_that_it_takes(folder):
    study = tiny.study(
        folder,
        candidates=[
            {"name": f"by {name}", "align": {"method": "adamw", "algorithm": name}} for name in ("dpo", "sft", "grpo", "raft")
        ],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}, "reward": ["rewards.py:brief", "judge"]},
    )
    recipes = {one.name: one.recipe for one in expand(study) if one.kind == "align"}
    assert not any("beta" in recipe for recipe in recipes.values())
    assert {name for name, recipe in recipes.items() if "reward" in recipe} == {"by grpo", "by raft"}
    assert recipes["by raft"]["reward"] == [f"{folder / 'rewards.py'}:brief", str(folder / "judge")]


def test_every_seed_of_a_point_has_its_beta(folder):
    study = tiny.study(
        folder,
        candidates=[{"name": "a", "align": {"method": "adamw", "beta": [0.1, 0.5], "seed": [0, 1]}}],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    found = {one.name: one.recipe["beta"] for one in expand(study) if one.kind == "align"}
    assert found == {"a β=0.1 seed=0": 0.1, "a β=0.1 seed=1": 0.1, "a β=0.5 seed=0": 0.5, "a β=0.5 seed=1": 0.5}


def test_two_widths_are_told_apart_by_their_headers(folder, tmp_path):
    from transformers import LlamaForCausalLM

    from tests.evaluate import tiny as models

    config = models.llama().config
    config.hidden_size, config.head_dim = 32, 16
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wide")
    with pytest.raises(MergetoolError, match="wide: tensor"):
        check_study(tiny.study(folder, candidates=[{"name": "x", "checkpoint": str(tmp_path / "wide")}]))
