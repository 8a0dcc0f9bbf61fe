"""Every algorithm trains with a merging optimizer and resumes; each on rows of its own form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.rows import LABELLED, PAIRS
from mergetool.errors import DataError, RecipeError
from tests.align.tiny import recipe_text


def recipe(triple: Path, algorithm: str, **parts: object):
    values = recipe_text(triple, algorithm=algorithm, merging={"method": "ondare", "density": 0.5, "alpha": 1e-3})
    return align_recipe({**values, **parts})


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    "algorithm", [row.name for row in ALGORITHMS.values() if row.rows in (PAIRS, LABELLED) and row.name != "dpo"]
)
def test_preference_algorithms_take_pairs(triple, tmp_path, algorithm: str) -> None:
    result = align(recipe(triple, algorithm), tmp_path / "out")
    assert result.merging["merges"] == 6
    assert result.drift["norm"] > 0
    assert "rewards/margins" in result.metrics or "rewards/chosen" in result.metrics


@pytest.mark.parametrize("form", ["completion", "text", "messages"])
def test_sft_takes_completions_texts_and_conversations(triple, tmp_path, form: str) -> None:
    said = [{"role": "user", "content": "how is the cat"}, {"role": "assistant", "content": "good thank you"}]
    row = {
        "completion": {"prompt": "how is the cat", "completion": " good thank you"},
        "text": {"text": "the cat sat on the mat"},
        "messages": {"messages": said},
    }[form]
    path = write(tmp_path / "rows.jsonl", *[row] * 8)
    told = {}
    result = align(
        recipe(triple, "sft", data={"train": str(path)}),
        tmp_path / "out",
        report=lambda event, facts: told.update({event: facts}),
    )
    assert result.metrics["loss"] < 4
    assert result.drift["norm"] > 0
    assert told["preview"]["input"]["text"].endswith("</s>")


def test_kto_takes_unpaired_rows(triple, tmp_path) -> None:
    good = {"prompt": "how is the cat", "completion": " good thank you", "label": True}
    path = write(tmp_path / "rows.jsonl", *[good, good, {**good, "completion": " bad why", "label": False}] * 4)
    result = align(recipe(triple, "kto", data={"train": str(path)}), tmp_path / "out")
    assert result.data["train"] == "12 usable; 8 good and 4 bad"


def test_sft_has_no_beta_and_dpo_no_completions(triple, tmp_path) -> None:
    with pytest.raises(RecipeError, match="algorithm sft has no reference model"):
        align(recipe(triple, "sft", beta=0.1), tmp_path / "out")
    path = write(tmp_path / "rows.jsonl", {"prompt": "p", "completion": "c"})
    with pytest.raises(DataError, match="row 1: no 'chosen'"):
        align(recipe(triple, "dpo", data={"train": str(path)}), tmp_path / "out")
