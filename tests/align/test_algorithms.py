"""Every algorithm trains with a merging optimizer and resumes; each on rows of its own form."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mergetool
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
    assert {one.key for one in ALGORITHMS[algorithm].logged if one.word} <= result.metrics.keys()


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


HINGE = """
            Algorithm(
                "hinge", "pairs: a hinge on their margin", "SLiC-HF, Zhao et al. 2023, arXiv 2305.10425",
                "trl:DPOTrainer", "trl:DPOConfig", PAIRS,
                reference="scored once", sets={"loss_type": ["hinge"]}, logged=PAIR_REWARDS,
            ),"""
USE = """
import sys
from pathlib import Path
from mergetool.align import align, align_recipe
from tests.align.tiny import recipe_text

told = {}
recipe = align_recipe(recipe_text(Path(sys.argv[1]), algorithm="hinge"))
result = align(recipe, Path(sys.argv[2]), report=lambda event, facts: told.update({event: facts}))
assert "rewards/margins" in result.metrics and result.drift["norm"] > 0 and told["reference"]
"""


def test_adding_an_algorithm_is_adding_a_row(triple, tmp_path) -> None:
    package = Path(mergetool.__file__).parent
    shutil.copytree(package, tmp_path / "mergetool", ignore=shutil.ignore_patterns("__pycache__", "triple"))
    table = tmp_path / "mergetool/align/algorithms.py"
    opening = "        for row in (\n"
    assert table.read_text().count(opening) == 1
    table.write_text(table.read_text().replace(opening, opening.rstrip() + HINGE + "\n"))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}
    command = [sys.executable, "-c", USE, str(triple), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_row_names_classes_and_fields_that_trl_has() -> None:
    for row in ALGORITHMS.values():
        fields = {field.name for field in dataclasses.fields(row.config_class())}
        assert {*row.sets, *row.config_defaults()} <= fields, row.name
        assert ("beta" in fields) or row.beta is None, row.name
        assert callable(row.trainer_class())
        assert row.rewarded or row.taught or not row.samples


def test_the_docs_have_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs/align.md").read_text()
    for row in ALGORITHMS.values():
        assert f"| `{row.name}` | {row.about} | {row.source} |\n" in text


def test_rpo_is_dpo_with_two_of_trls_losses_and_trains_beside_a_baseline(triple, tmp_path) -> None:
    """Pang et al. 2024: the sigmoid loss and the likelihood of the chosen side; here with rows that should stay too."""
    values = recipe_text(triple, merging={"method": "replay", "rows": {"data": "stay.jsonl"}, "batch_size": 2})
    values["training"] |= {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "max_steps": 2}
    rpo = align(align_recipe(values, triple), tmp_path / "rpo")
    values["training"] |= {"loss_type": "sigmoid", "loss_weights": None}
    dpo = align(align_recipe(values, triple), tmp_path / "dpo")
    first = {name: json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]) for name in ("rpo", "dpo")}
    assert first["rpo"]["rows_loss"] == first["dpo"]["rows_loss"]
    assert first["rpo"]["loss"] > first["dpo"]["loss"] + 1.5, "half the chosen side's loss per token, about ln 44"
    assert rpo.drift["norm"] > 0
    assert rpo.drift["norm"] != dpo.drift["norm"]
