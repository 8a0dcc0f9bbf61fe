"""mergetool compare around a study: the exit code says whether a candidate failed, and tables are whole in a pipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from rich.table import Table

from mergetool.cli.compare import leave, print_table
from mergetool.config.packaged import recipe_path
from tests.cli.shell import refusal


@pytest.mark.parametrize(
    ("failures", "bugs", "code"), [([], False, None), ([("a", "no such model")], False, 2), ([("a", "KeyError")], True, 1)]
)
def test_the_exit_code_says_whether_a_candidate_failed_and_whose_fault_it_was(failures, bugs, code, capsys) -> None:
    result = SimpleNamespace(failures=failures, bugs=bugs, rows=[{}, {}])
    if code is None:
        leave(result)
        return
    with pytest.raises(typer.Exit) as left:
        leave(result)
    assert left.value.exit_code == code
    assert capsys.readouterr().err == "1 of 2 candidates failed; run again to retry them\n"


def test_a_table_is_not_cut_where_there_is_no_terminal(capsys) -> None:
    table = Table("x" * 70, "y" * 70)
    table.add_row("a" * 70, "b" * 70)
    print_table(table)
    out = capsys.readouterr().out
    assert "a" * 70 in out
    assert "b" * 70 in out


def test_what_is_to_be_saved_is_checked_before_anything_is_made(tmp_path: Path) -> None:
    line = refusal("compare", recipe_path("study", "demo"), tmp_path / "out", "--save", "bset")
    assert line == "mergetool: --save bset is not known; did you mean 'best'?"
    assert not (tmp_path / "out").exists()
