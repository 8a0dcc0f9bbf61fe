"""The study's RLHF model is a checkpoint, or the seeds of one align candidate."""

import pytest

from mergetool.errors import RecipeError
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.rlhf import rlhf_group, rlhf_runs
from tests.study import tiny


def test_every_seed_of_the_named_candidate_is_one_and_a_grid_is_none(folder):
    entry = {"name": "adamw", "align": {"method": "adamw"}}
    study = tiny.study(folder, models={"base": "base", "sft": "sft", "rlhf": {"align": "adamw"}}, candidates=[entry])
    runs = [AlignCandidate(f"adamw {seed}", "adamw", "adamw", "adamw", seed=seed) for seed in (0, 1)]
    other = AlignCandidate("other", "other", "other", "other")
    assert rlhf_runs(study, [other, *runs]) == runs
    assert rlhf_group(study, [other, *runs]) == "adamw"
    with pytest.raises(RecipeError, match="'adamw' is a grid"):
        rlhf_runs(study, [*runs, AlignCandidate("adamw b", "adamw b", "adamw", "adamw")])


def test_a_given_checkpoint_needs_no_run(folder):
    study = tiny.study(folder)
    assert rlhf_runs(study, []) == [None]
    assert rlhf_group(study, []) == "rlhf"
