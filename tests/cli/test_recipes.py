"""mergetool recipes: listed, shown and copied."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.cli.shell import run


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    names = [line.split()[0] for line in run("recipes", "ls")[0].splitlines()]
    assert "merge/ties" in names
    shown = run("recipes", "show", "merge/ties")[0]
    assert shown.startswith("# mergetool merge")
    run("recipes", "copy", "merge/ties", tmp_path)
    assert (tmp_path / "ties.yaml").read_text() == shown
    assert CliRunner().invoke(app, ["recipes", "copy", "merge/ties", str(tmp_path)]).exit_code == 2
    run("recipes", "copy", "align/grpo-onties", tmp_path)
    assert (tmp_path / "brief.py").exists()  # the reward that the recipe names


def test_a_misspelt_recipe_names_the_nearest_one() -> None:
    refused = CliRunner().invoke(app, ["recipes", "show", "merge/tie"])
    assert refused.exit_code == 2
    assert refused.stderr.strip() == "mergetool: no recipe 'merge/tie'; did you mean 'merge/ties'?"


def test_what_a_recipe_is_for_stands_beside_its_name() -> None:
    lines = dict(line.split(None, 1) for line in run("recipes", "ls")[0].splitlines())
    assert all(lines.values())
    assert lines["merge/linear"].startswith("Straight line between SFT and RLHF")
