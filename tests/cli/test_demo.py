"""mergetool demo is mergetool compare on a recipe that ships, and says so."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from mergetool.cli.main import app
from mergetool.config.packaged import recipe_path


def test_the_demo_says_which_command_it_is_and_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    result = CliRunner().invoke(app, ["demo", str(tmp_path)])
    assert result.exit_code == 2
    told, error = result.stderr.splitlines()
    assert told.startswith(f"this is: mergetool compare {recipe_path('study', 'demo')} {tmp_path} --workers ")
    assert (
        error == f"mergetool: {tmp_path}: holds something that is not a study; give a new directory, or that of an earlier run"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
