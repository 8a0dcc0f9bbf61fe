"""The recipes that ship are found in the repository and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.config import packaged
from mergetool.config.packaged import KINDS, list_recipes, recipe_path, recipes_root
from mergetool.errors import RecipeError


def test_every_file_of_every_kind_is_listed_and_found() -> None:
    root = recipes_root()
    files = {path for kind in KINDS for path in (root / kind).glob("*.yaml")}
    assert {recipe_path(kind, name) for kind, name in list_recipes()} == files
    assert {kind for kind, _ in list_recipes()} == set(KINDS)


@pytest.mark.parametrize(("kind", "name"), [("merge", "tie"), ("study", "ties"), ("merge", "../merge/ties")])
def test_another_name_is_an_error_and_no_path_out_of_the_recipes(kind: str, name: str) -> None:
    with pytest.raises(RecipeError, match=f"no recipe '{kind}/{name}'"):
        recipe_path(kind, name)


def test_in_a_wheel_they_lie_inside_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mergetool/recipes/merge").mkdir(parents=True)
    (tmp_path / "mergetool/recipes/merge/own.yaml").touch()
    monkeypatch.setattr(packaged, "_HERE", tmp_path / "mergetool")
    assert list_recipes() == [("merge", "own")]


def test_an_installation_without_them_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "_HERE", tmp_path / "mergetool")
    with pytest.raises(RecipeError, match="has no recipes; install the wheel"):
        list_recipes()
