"""The weights along a run are those of a run that was stopped there; keeping them changes nothing; they survive a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mergetool.align import align
from mergetool.align.snapshots import place_of, step_of
from mergetool.errors import RecipeError
from tests.align.test_run import Killed, killer, recipe, weights


@pytest.fixture(scope="module")
def kept(triple, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("along") / "out"
    align(recipe(triple), out, along=[0.5, 5])
    return out


def test_keeping_them_changes_nothing_of_the_run(triple, tmp_path, kept) -> None:
    align(recipe(triple), tmp_path / "plain")
    assert weights(tmp_path / "plain") == weights(kept)


def test_a_model_along_a_run_is_that_of_the_trainer_at_its_step_and_a_whole_checkpoint(triple, tmp_path, kept) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert sorted(path.name for path in (kept / "along").iterdir()) == ["step-3", "step-5"]
    assert json.loads((kept / "mergetool.json").read_text())["along"] == [3, 5]
    with pytest.raises(Killed):
        align(recipe(triple, save_steps=3), tmp_path / "out", report=killer(4))
    trainers = tmp_path / ".out.mergetool-partial/training/checkpoint-3"
    ours = place_of(kept, 0.5)
    assert ours == kept / "along/step-3"
    assert weights(ours) == weights(trainers)
    AutoModelForCausalLM.from_pretrained(ours)
    AutoTokenizer.from_pretrained(ours)
    assert not (ours / "optimizer.pt").exists()


def test_a_killed_run_resumes_with_the_models_that_it_had_kept(triple, tmp_path, kept) -> None:
    with pytest.raises(Killed):
        align(recipe(triple), tmp_path / "out", report=killer(5), along=[0.5, 5])
    result = align(recipe(triple), tmp_path / "out", along=[0.5, 5])
    assert result.resumed_from == 4
    for step in (3, 5):
        assert weights(tmp_path / f"out/along/step-{step}") == weights(kept / f"along/step-{step}")
    assert weights(tmp_path / "out") == weights(kept)


def test_a_run_that_passed_a_step_without_keeping_it_begins_again(triple, tmp_path, kept) -> None:
    with pytest.raises(Killed):
        align(recipe(triple), tmp_path / "out", report=killer(5), along=[5])
    result = align(recipe(triple), tmp_path / "out", along=[3, 5])
    assert result.resumed_from is None
    assert weights(tmp_path / "out/along/step-3") == weights(kept / "along/step-3")


@pytest.mark.parametrize("method", ["ema", "lora"])
def test_what_is_kept_of_an_average_or_an_adapter_is_the_whole_model(triple, tmp_path, method: str) -> None:
    merging = {"method": method, **({"coefficient": 0.5} if method == "ema" else {"rank": 2})}
    plain = recipe(triple).as_written()
    from mergetool.align import align_recipe

    def run(name: str, steps: int, **more: object) -> Path:
        training = {**plain["training"], "max_steps": steps, "lr_scheduler_type": "constant", "learning_rate": 1e-2}
        align(align_recipe({**plain, "merging": merging, "training": training}), tmp_path / name, **more)
        return tmp_path / name

    whole, short = run("whole", 4, along=[2]), run("short", 2)
    assert weights(whole / "along/step-2") == weights(short)
    assert weights(run("alone", 4)) == weights(whole)


def test_a_step_that_the_run_does_not_have_is_one_line_and_leaves_nothing(triple, tmp_path) -> None:
    with pytest.raises(RecipeError, match="step 60, and the run has 6 steps"):
        align(recipe(triple), tmp_path / "out", along=[60])
    assert list(tmp_path.iterdir()) == []


def test_a_share_is_a_step_before_the_last(kept, tmp_path) -> None:
    assert [step_of(place, 10) for place in (0.001, 0.25, 0.999, 7)] == [1, 2, 9, 7]
    shutil.copytree(kept, tmp_path / "out")
    assert place_of(tmp_path / "out", 0.9) == tmp_path / "out/along/step-5"
    assert place_of(tmp_path / "out", 4) is None
    assert place_of(tmp_path / "nowhere", 4) is None
