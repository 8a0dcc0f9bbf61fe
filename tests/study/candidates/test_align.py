"""An align candidate is an exact align recipe, checked by the room that trains it."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import check_study
from mergetool.study.recipe.expand import expand
from tests.study import tiny


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
