"""A recipe is found wherever people have it: a file, standard input, the package, a merged model's own directory or card."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from mergetool.config.packaged import list_recipes
from mergetool.errors import RecipeError
from mergetool.merge import load_merge_recipe, recipe_source

RECIPE = "merge_method: linear\nmodels:\n  - {model: m, parameters: {weight: 1.0}}\n"
CARD = f"---\ntags: [merge]\n---\n# A model\n```python\nx = 1\n```\n\n## Configuration\n\n```yaml\n{RECIPE}```\n"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("mergekit_config.yml", RECIPE),
        ("README.md", CARD),
        (
            "mergetool.json",
            json.dumps({"recipe": {"merge_method": "linear", "models": [{"model": "m", "parameters": {"weight": 1.0}}]}}),
        ),
    ],
)
def test_a_merged_models_directory_has_its_recipe(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "m").mkdir()
    for place in (tmp_path, *([tmp_path / file] if file.endswith(".md") else [])):
        recipe = load_merge_recipe(place)
        assert (recipe.merge_method, recipe.models[0].model) == ("linear", str(tmp_path / "m"))


@pytest.mark.parametrize(("kind", "name"), [one for one in list_recipes() if one[0] == "merge"])
def test_every_merge_recipe_of_the_package_goes_by_the_name_that_is_printed(kind: str, name: str) -> None:
    assert load_merge_recipe(f"{kind}/{name}") == load_merge_recipe(name)


def test_a_recipe_comes_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_source.stdin_text.cache_clear()
    monkeypatch.setattr("sys.stdin", io.StringIO(RECIPE))
    assert load_merge_recipe("-").merge_method == "linear"
    assert load_merge_recipe(Path("-")).merge_method == "linear"
    recipe_source.stdin_text.cache_clear()


@pytest.mark.parametrize(
    "card",
    [
        CARD.replace("```yaml", "```"),
        CARD.replace("```", "~~~"),
        CARD.replace("\n", "\r\n"),
        CARD + CARD,
        "<details>\n\n" + "".join(f"  {line}\n" for line in CARD.splitlines()),
        '```python\ntext = """\nmerge_method: ties\n"""\n```\n' + CARD,
    ],
    ids=["no language", "tildes", "other line ends", "twice the same", "indented", "in a program"],
)
def test_a_cards_recipe_is_found_however_it_is_fenced(tmp_path: Path, card: str) -> None:
    (tmp_path / "README.md").write_text(card, newline="")
    assert load_merge_recipe(tmp_path).merge_method == "linear"


def test_of_a_card_with_several_recipes_none_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD + CARD.replace("linear", "karcher"))
    with pytest.raises(RecipeError, match=r"2 recipes \(linear, karcher\)"):
        load_merge_recipe(tmp_path)


def test_a_directory_or_a_card_without_a_recipe_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mergekit_config\.yml"):
        load_merge_recipe(tmp_path)
    (tmp_path / "README.md").write_text("# nothing\n")
    with pytest.raises(RecipeError, match="yaml block"):
        load_merge_recipe(tmp_path)
    with pytest.raises(RecipeError, match="no such file"):
        load_merge_recipe(tmp_path / "none.yaml")
