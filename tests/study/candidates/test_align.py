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


@pytest.mark.parametrize(("algorithm", "says"), [("reward", "trains a reward model"), ("distillation", "a policy of its own")])
def test_what_is_no_candidate_is_one_line(folder, algorithm: str, says: str):
    study = tiny.study(
        folder,
        candidates=[{"name": "r", "align": {"method": "adamw", "algorithm": algorithm}}],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    with pytest.raises(MergetoolError, match=rf"candidate 'r'.*algorithm {algorithm}.*{says}.*`mergetool align`"):
        check_study(study)


def test_every_seed_of_a_point_has_its_beta(folder):
    study = tiny.study(
        folder,
        candidates=[{"name": "a", "align": {"method": "adamw", "beta": [0.1, 0.5], "seed": [0, 1]}}],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    found = {one.name: one.recipe["beta"] for one in expand(study) if one.kind == "align"}
    assert found == {"a β=0.1 seed=0": 0.1, "a β=0.1 seed=1": 0.1, "a β=0.5 seed=0": 0.5, "a β=0.5 seed=1": 0.5}


def test_rows_that_should_stay_are_one_entry_beside_grids_and_lie_where_the_study_says(folder):
    rows = {"data": "skills_validation.jsonl", "limit": 8}
    study = tiny.study(
        folder,
        candidates=[{"name": "r", "align": {"method": "replay", "lambda": [0.1, 1.0], "batch_size": 2, "rows": rows}}],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    found = {one.name: one.recipe["merging"] for one in expand(study) if one.kind == "align"}
    assert set(found) == {"r lambda=0.1", "r lambda=1"}
    assert found["r lambda=1"]["rows"] == {"data": [str(folder / "skills_validation.jsonl")], "limit": 8}
    check_study(study)
    rows["data"] = "none.jsonl"
    with pytest.raises(MergetoolError, match=r"candidate 'r lambda=0.1'.*none\.jsonl: no such file"):
        check_study(
            tiny.study(
                folder,
                candidates=[{"name": "r", "align": {"method": "replay", "lambda": [0.1, 1.0], "rows": rows}}],
                align_defaults={"data": {"train": "pairs_validation.jsonl"}},
            )
        )


def test_sets_of_rows_are_a_list_in_one_entry_and_their_renewal_and_form_are_grids(folder):
    rows = {"data": ["skills_validation.jsonl", "pairs_validation.jsonl"], "limit": 8}
    study = tiny.study(
        folder,
        candidates=[
            {"name": "o", "align": {"method": "ogpsa", "rows": rows, "every": [1, 5], "project": ["gradient", "update"]}}
        ],
        align_defaults={"data": {"train": "pairs_validation.jsonl"}},
    )
    found = {one.name: one.recipe["merging"] for one in expand(study) if one.kind == "align"}
    assert {(one["every"], one["project"]) for one in found.values()} == {
        (every, form) for every in (1, 5) for form in ("gradient", "update")
    }
    assert all(one["rows"]["data"] == [str(folder / name) for name in rows["data"]] for one in found.values())
    check_study(study)
