"""What goes to mergekit is a recipe that it understands, run as a program of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mergetool.errors import RecipeError
from mergetool.merge import MergeRecipe
from mergetool.merge.mergekit import command, run


def test_the_command_line_names_shards_and_device(tmp_path: Path) -> None:
    words = command(tmp_path / "r.yaml", tmp_path / "out", device="cpu", shard_bytes=123, adapters=tmp_path)
    assert words[0] == sys.executable
    assert words[words.index("--out-shard-size") + 1] == "123"
    assert "--cuda" not in words
    assert "--cuda" in command(tmp_path / "r.yaml", tmp_path / "out", device="cuda:0", shard_bytes=123, adapters=tmp_path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"models": [{"model": "m", "relative_to": "b"}]}, r"models\[0\].relative_to"),
        ({"parameters": {"scope": "model"}}, "parameters.scope"),
        ({"parameters": {"rescale": "unbiased"}}, "parameters.rescale"),
    ],
)
def test_keys_that_only_we_know_are_refused_before_it_runs(tmp_path: Path, changes: dict, key: str) -> None:
    recipe = MergeRecipe(**{"merge_method": "sce", "models": [{"model": "m"}], "base_model": "b", **changes})
    with pytest.raises(RecipeError, match=f"{key}.* is not known to mergekit"):
        run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
