"""What is reported as kept is what is there."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from mergetool.merge import METHODS, MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import write_triple

SPARSE = [name for name, method in METHODS.items() if "density" in method.parameters]


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("method", SPARSE)
def test_the_kept_fraction_is_that_of_the_weights(tmp_path: Path, method: str, scope: str) -> None:
    if scope == "model" and "scope" not in METHODS[method].parameters:
        pytest.skip("has no scope")
    triple = write_triple(tmp_path / "in")
    given = {"density": 0.4, "rescale": "none"} | ({"scope": "model"} if scope == "model" else {})
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "w1 w2 w3"}\n{"text": "w4 w5"}\n')
    calibration = {"data": str(rows)} if METHODS[method].projects else None
    recipe = MergeRecipe(
        calibration=calibration, merge_method=method, base_model=str(triple["base"]), parameters=given,
        models=[{"model": str(triple["rlhf"]), "parameters": {"weight": 1.0}}],
    )  # fmt: skip
    manifest = merge_to_directory(plan_merge(recipe), tmp_path / "out")
    base, out = (load_file(path / "model.safetensors") for path in (triple["base"], tmp_path / "out"))
    moved = sum(int((out[name] != base[name]).sum()) for name in base)
    total = sum(w.numel() for w in base.values())
    (kept,) = manifest["kept"].values()
    assert kept == pytest.approx(moved / total, abs=2e-4)  # a kept entry may be too small to move its weight
    assert kept == pytest.approx(0.4, abs=0.02)
