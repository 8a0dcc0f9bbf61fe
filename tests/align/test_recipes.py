"""Every align recipe in recipes/ is valid and opens with the command that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.align import load_align_recipe
from mergetool.lab import lab_path

ALL = sorted((Path(__file__).parents[2] / "recipes" / "align").glob("*.yaml"))
# what lies on the Hub is checked in tests/hub, through a stand-in for it
RECIPES = [path for path in ALL if isinstance(load_align_recipe(path).sft, Path)]


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 4


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_opens_with_its_command(path: Path) -> None:
    recipe = load_align_recipe(path)
    assert recipe.sft == lab_path("sft")
    assert f"mergetool align recipes/align/{path.name} out/{path.stem}" in path.read_text().split("\n\n")[0]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_passes_the_check(path: Path) -> None:
    from mergetool.align import check_align

    if not lab_path("sft").is_dir():
        pytest.skip("the lab's triple is not in this tree")
    assert check_align(load_align_recipe(path))["model"]["architecture"] == "LlamaForCausalLM"
