"""A merge in one call is the command's merge, whatever form the recipe has."""

from __future__ import annotations

from pathlib import Path

import yaml

from mergetool.merge.recipe import load_merge_recipe
from mergetool.merge.run import merge
from tests.helpers import write_triple


def test_path_mapping_and_recipe_give_the_same_bytes_and_a_seed_another_mask(tmp_path: Path) -> None:
    triple = write_triple(tmp_path / "in")
    models = [{"model": str(triple[n]), "parameters": {"weight": 0.5, "density": 0.5}} for n in ("sft", "rlhf")]
    content = {"merge_method": "dare_linear", "base_model": str(triple["base"]), "models": models}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    made = [merge(form, tmp_path / f"out{i}") for i, form in enumerate((path, content, load_merge_recipe(path)))]
    assert made[0]["outputs_sha256"] == made[1]["outputs_sha256"] == made[2]["outputs_sha256"]
    other = merge(path, tmp_path / "other", seed=1)
    assert other["seed"] == 1
    assert other["outputs_sha256"] != made[0]["outputs_sha256"]
