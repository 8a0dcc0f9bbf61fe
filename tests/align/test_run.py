"""A run leaves a complete checkpoint or nothing, and an interrupted run ends where the uninterrupted one does."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from mergetool.align import align_recipe
from mergetool.align.run import align
from mergetool.errors import DataError, MergetoolError, OutputError, RecipeError
from tests.align.tiny import recipe_text

METHODS = {
    "adamw": {"method": "adamw"},
    "ondare": {"method": "ondare", "density": 0.3, "alpha": 1e-3, "every": 2},
    "onties": {"method": "onties", "density": 0.3, "alpha": 1e-3},
    "onlinear": {"method": "onlinear", "alpha": 1e-3, "every": 3},
    "ema": {"method": "ema", "coefficient": 0.1},
    "lora": {"method": "lora", "rank": 2},
    "replay": {"method": "replay", "rows": {"data": "stay.jsonl"}, "batch_size": 3},
    "lwf": {"method": "lwf", "rows": {"data": "stay.jsonl"}, "lambda": 50},
    "ewc": {"method": "ewc", "rows": {"data": "stay.jsonl"}, "lambda": 0.1},
    "ogpsa": {"method": "ogpsa", "rows": {"data": ["stay.jsonl", "train.jsonl"]}, "every": 3},
    "ogpsa update": {"method": "ogpsa", "rows": {"data": ["stay.jsonl", "train.jsonl"]}, "every": 3, "project": "update"},
}


class Killed(BaseException):
    """Stands for kill -9: no handler of ours knows it."""


def recipe(folder: Path, method: str = "adamw", **training: object):
    parts = recipe_text(folder, merging=METHODS[method])
    parts["training"] = {**parts["training"], "save_steps": 2, **training}
    return align_recipe(parts, folder)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def killer(step: int):
    def report(event: str, facts: dict) -> None:
        if event == "step" and facts["step"] == step:
            raise Killed

    return report


@pytest.fixture(scope="module")
def finished(triple, tmp_path_factory) -> Path:
    """An uninterrupted AdamW run."""
    out = tmp_path_factory.mktemp("finished") / "out"
    align(recipe(triple), out)
    return out


def test_the_result_is_a_checkpoint_that_transformers_and_merge_accept(triple, finished) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mergetool.checkpoint.layout import read_layout

    assert {p.name for p in finished.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "mergetool.json",
        "metrics.jsonl",
        "README.md",
    }
    model, tokenizer = AutoModelForCausalLM.from_pretrained(finished), AutoTokenizer.from_pretrained(finished)
    assert tokenizer.chat_template
    assert model.config.pad_token_id == AutoModelForCausalLM.from_pretrained(triple / "sft").config.pad_token_id
    assert read_layout(finished).tensors.keys() == read_layout(triple / "sft").tensors.keys()


def test_the_account_holds_recipe_seeds_versions_metrics_and_drift(finished) -> None:
    account = json.loads((finished / "mergetool.json").read_text())
    assert account["steps"] == 6
    assert account["recipe"]["merging"] == {"method": "adamw"}
    assert account["drift"]["norm"] > 0
    assert {"loss", "rewards/margins"} <= account["metrics"].keys()
    assert {"torch", "trl", "transformers"} <= account["versions"].keys()
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert "DPO with adamw" in (finished / "README.md").read_text()


def test_nothing_but_the_result_is_left(finished) -> None:
    assert [p.name for p in finished.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_resumes_to_the_same_bytes(triple, tmp_path, method: str) -> None:
    align(recipe(triple, method), tmp_path / "whole")
    with pytest.raises(Killed):
        align(recipe(triple, method), tmp_path / "out", report=killer(5))
    assert not (tmp_path / "out").exists()
    result = align(recipe(triple, method), tmp_path / "out")
    assert result.resumed_from == 4
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


def test_a_checkpoint_cut_short_is_not_trusted(triple, tmp_path, finished) -> None:
    with pytest.raises(Killed):
        align(recipe(triple), tmp_path / "out", report=killer(5))
    (tmp_path / ".out.mergetool-partial/training/checkpoint-4/complete").unlink()
    assert align(recipe(triple), tmp_path / "out").resumed_from == 2
    assert weights(tmp_path / "out") == weights(finished)


def test_ctrl_c_writes_a_checkpoint_first(triple, tmp_path, finished) -> None:
    def report(event: str, facts: dict) -> None:
        if event == "step" and facts["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="checkpoint at step 3"):
        align(recipe(triple), tmp_path / "out", report=report)
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "out").exists()
    assert align(recipe(triple), tmp_path / "out").resumed_from == 3
    assert weights(tmp_path / "out") == weights(finished)


@pytest.mark.parametrize("steps", [6, 4])  # an epoch has 6
def test_a_run_killed_after_its_last_step_trains_no_step_more(triple, tmp_path, steps: int) -> None:
    def report(event: str, facts: dict) -> None:
        if event == "result":
            raise Killed

    with pytest.raises(Killed):
        align(recipe(triple, max_steps=steps), tmp_path / "out", report=report)
    before = weights(tmp_path / f".out.mergetool-partial/training/checkpoint-{steps}")
    result = align(recipe(triple, max_steps=steps), tmp_path / "out")
    assert (result.resumed_from, result.steps) == (steps, steps)
    assert weights(tmp_path / "out") == before


def test_another_recipe_does_not_continue_an_interrupted_run_and_fresh_discards_it(triple, tmp_path) -> None:
    with pytest.raises(Killed):
        align(recipe(triple), tmp_path / "out", report=killer(3))
    with pytest.raises(OutputError, match="--fresh"):
        align(recipe(triple, seed=7), tmp_path / "out")
    assert align(recipe(triple, seed=7), tmp_path / "out", fresh=True).resumed_from is None


def test_a_finished_run_is_not_repeated_and_not_overwritten(triple, tmp_path, finished) -> None:
    out = shutil.copytree(finished, tmp_path / "out")
    again = align(recipe(triple), out)
    assert again.already_done
    assert again.steps == 6
    with pytest.raises(OutputError, match="another result"):
        align(recipe(triple, seed=7), out)


def test_an_output_that_is_not_ours_is_refused_before_any_work(triple, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a result of mergetool"):
        align(recipe(triple), tmp_path / "out", report=lambda *_: pytest.fail("work was done"))
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "thesis.txt"]


def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(triple, tmp_path) -> None:
    def full(event: str, facts: dict) -> None:
        if event == "step" and facts["step"] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full; make room"):
        align(recipe(triple), tmp_path / "out", report=full)
    assert align(recipe(triple), tmp_path / "out").resumed_from == 4


def test_two_runs_do_not_write_one_output(triple, tmp_path) -> None:
    from mergetool.align.workspace import Workspace

    with Workspace(tmp_path / "out", "x"), pytest.raises(OutputError, match="another run"), Workspace(tmp_path / "out", "x"):
        pass


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"data": {"max_length": 4}}, DataError, "raise data.max_length"),
        ({"training": {"loss_type": "exo_pair"}}, RecipeError, "training: Label smoothing must be greater than 0.0"),
        ({"training": {"eval_strategy": "epoch"}}, RecipeError, "add `data.eval`"),
        ({"merging": {"method": "childtuning", "every": 99}}, RecipeError, "more than the run's 6 steps"),
        (
            {"training": {"learning_rate": 1e30, "max_grad_norm": 0}},
            RecipeError,
            r"the loss is nan at step \d+, on usable rows \d+, \d+, \d+, \d+;",
        ),
    ],
)
def test_an_error_while_training_leaves_nothing_behind(triple, tmp_path, change: dict, kind: type, says: str) -> None:
    parts = recipe_text(triple)
    for key, value in change.items():
        parts[key] = value if key == "merging" else {**parts[key], **value}
    with pytest.raises(kind, match=says) as caught:
        align(align_recipe(parts), tmp_path / "out")
    assert isinstance(caught.value, MergetoolError)
    assert list(tmp_path.iterdir()) == []


def test_evaluation_rows_give_metrics_and_bfloat16_is_written_where_asked(triple, tmp_path) -> None:
    parts = recipe_text(triple, dtype="bfloat16", out_dtype="bfloat16")
    parts["data"]["eval"] = str(triple / "eval.jsonl")
    parts["training"]["max_steps"] = 2
    result = align(align_recipe(parts), tmp_path / "out")
    assert {"eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"} <= result.metrics.keys()
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
