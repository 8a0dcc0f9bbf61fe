"""What a run says of itself is said of the weights that it wrote: those of its best step, where it was asked for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.snapshots import place_of
from mergetool.align.written import date_evaluation, log_of, relocate_best, step_of_checkpoint
from mergetool.checkpoint.manifest import Manifest
from tests.align.test_baselines import load, same
from tests.align.tiny import recipe_text

MERGING = [{"method": "ondare", "density": 0.5, "alpha": 0.01}, {"method": "ema", "coefficient": 0.5}]


@pytest.mark.parametrize("merging", MERGING, ids=lambda merging: merging["method"])
def test_the_account_is_that_of_the_best_step(triple, tmp_path: Path, merging: dict) -> None:
    values = recipe_text(triple, merging=merging)
    # what is wanted of the evaluation is what is unlearnt, so the first evaluation is the best
    rows = [json.loads(line) for line in (triple / "train.jsonl").read_text().splitlines()]
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in swapped))
    values["data"]["eval"] = str(tmp_path / "eval.jsonl")
    values["training"] |= {"learning_rate": 1e-2, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    values["training"] |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
    out = tmp_path / "out"
    result = align(align_recipe(values), out, along=(2, 4), picture=True)
    log = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    scores = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    best = min(scores, key=lambda step: scores[step])
    assert best < 6
    assert (result.steps, result.trained) == (best, 6)
    assert same(load(out), load(out / "along" / f"step-{best}")), "the average of that step, of an average"
    assert result.metrics["eval_loss"] == scores[best]
    assert result.metrics["loss"] == next(line["loss"] for line in log if line["step"] == best and "loss" in line)
    merged = 0.01 * best if merging["method"] == "ondare" else 0
    assert result.merging["merged_total"] == pytest.approx(merged)
    assert result.merging["merges"] == (best if merged else 0)
    manifest = Manifest.read(out)
    assert (manifest.steps, manifest.trained, manifest.merging, manifest.metrics) == (best, 6, result.merging, result.metrics)
    assert f"{best} steps (the best of 6) on" in (out / "README.md").read_text()
    assert place_of(out, 1 / 3) == out / "along" / "step-2", "shares are of the whole run"
    again = align(align_recipe(values), out, along=(2, 4))
    assert (again.already_done, again.steps, again.trained) == (True, best, 6)


def test_the_log_of_a_step_ends_with_the_evaluation_of_its_weights() -> None:
    log = [{"step": 2, "loss": 1.0, "epoch": 0.5}, {"step": 4, "loss": 9.0}, {"step": 4, "eval_loss": 3.0, "epoch": 1.0}]
    date_evaluation(log, 2)
    assert log_of(log, 2) == [{"step": 2, "loss": 1.0, "epoch": 0.5}, {"step": 2, "eval_loss": 3.0, "epoch": 0.5}]


def test_a_run_that_was_moved_finds_its_best_checkpoint(tmp_path: Path) -> None:
    for step in (2, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    last = tmp_path / "checkpoint-6"
    (last / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": "/else/checkpoint-2", "global_step": 6}))
    relocate_best(last)
    state = json.loads((last / "trainer_state.json").read_text())
    assert state == {"best_model_checkpoint": str(tmp_path / "checkpoint-2"), "global_step": 6}
    assert step_of_checkpoint(Path(state["best_model_checkpoint"])) == 2
