"""The models along a run are found by their step, the result among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.checkpoint.along import models_along
from mergetool.errors import CheckpointError


def model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")


def test_a_result_is_one_of_its_models_and_takes_the_place_of_none_that_was_kept(tmp_path: Path) -> None:
    for name in ("", "along/step-10", "along/step-9", "checkpoint-3"):
        model(tmp_path / name)
    (tmp_path / "along/notes").mkdir()
    manifest = {"schema": 2, "kind": "align", "recipe": {}, "inputs": [], "steps": 12}
    (tmp_path / "mergetool.json").write_text(json.dumps(manifest))
    assert list(models_along(tmp_path)) == [9, 10, 12]
    assert models_along(tmp_path)[12] == tmp_path
    (tmp_path / "mergetool.json").write_text(json.dumps({**manifest, "steps": 10}))  # the best one was kept too
    assert list(models_along(tmp_path)) == [9, 10]


def test_a_trainers_checkpoints_are_found_and_its_last_model_is_not_counted_twice(tmp_path: Path) -> None:
    for name in ("", "checkpoint-100", "checkpoint-20"):
        model(tmp_path / name)
    (tmp_path / "checkpoint-300").mkdir()  # cut short
    assert list(models_along(tmp_path)) == [20, 100]
    with pytest.raises(CheckpointError, match="no models along a run"):
        models_along(tmp_path / "checkpoint-20")
