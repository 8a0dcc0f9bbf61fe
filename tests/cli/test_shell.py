"""What all commands share: exit codes, sizes for people, and errors that name the recipe's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from mergetool.cli.shell import echo, emit_json, guarded, naming, note, parse_size, print_table, size
from mergetool.errors import CheckpointError, MergetoolError, RecipeError
from tests.cli.shell import refusal


def raising(error: BaseException):
    def command() -> None:
        raise error

    return guarded(command)


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (RecipeError("x: wrong", "correct it"), 2, "mergetool: x: wrong; correct it\n"),
        (CheckpointError("y: damaged", "fetch it again"), 2, "mergetool: y: damaged; fetch it again\n"),
        (KeyboardInterrupt(), 130, "mergetool: interrupted; run the same command again to go on from what is on disk\n"),
    ],
)
def test_an_error_of_the_users_is_one_line_and_its_exit_code(error, code: int, says: str, capsys) -> None:
    with pytest.raises(typer.Exit) as left:
        raising(error)()
    assert left.value.exit_code == code
    assert capsys.readouterr() == ("", says)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        raising(ZeroDivisionError("ours"))()


def test_an_error_in_a_plan_names_the_recipes_file_once() -> None:
    path = Path("some/recipe.yaml")
    for message in ("density: out of range", f"{path}: density: out of range"):
        with pytest.raises(RecipeError) as caught, naming(path):
            raise RecipeError(message, "lower it")
        assert str(caught.value) == "some/recipe.yaml: density: out of range; lower it"
    with pytest.raises(CheckpointError, match="model: gone; fetch it"), naming(path):
        raise CheckpointError("model: gone", "fetch it")


@pytest.mark.parametrize(
    ("text", "count"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("1.5KiB", 1536), ("7", 7), ("12B", 12), ("2TB", None)]
)
def test_a_size_is_a_number_with_a_unit(text: str, count: int | None) -> None:
    if count is None:
        with pytest.raises(MergetoolError, match="is not a size; write it as 5GB"):
            parse_size(text, "--shard-size")
    else:
        assert parse_size(text, "--shard-size") == count


@pytest.mark.parametrize("text", ["", "many", "0", "-1GB", "GB", "1XB"])
def test_what_is_no_size_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(MergetoolError, match="--shard-size"):
        parse_size(text, "--shard-size")


@given(st.integers(1, 10**14))
def test_a_size_for_people_has_three_digits_of_the_number(count: int) -> None:
    shown, unit = size(count).split()
    factor = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    assert float(shown) * factor == pytest.approx(count, rel=0.005)
    assert float(shown) < 1001


def test_json_keeps_letters_as_they_are(capsys) -> None:
    emit_json({"tau": "τ", "n": 1})
    out = capsys.readouterr().out
    assert "τ" in out
    assert json.loads(out) == {"tau": "τ", "n": 1}


@pytest.mark.parametrize("command", ["merge", "align", "ama", "compare"])
def test_values_are_set_by_every_command_that_reads_a_recipe_and_a_wrong_key_is_told(tmp_path: Path, command: str) -> None:
    (tmp_path / "r.yaml").write_text("{}\n")
    assert "no_such_key" in refusal(command, tmp_path / "r.yaml", tmp_path / "out", "--set", "no_such_key=1")
    assert "no KEY=VALUE" in refusal(command, tmp_path / "r.yaml", tmp_path / "out", "--set", "no_such_key")
    assert not (tmp_path / "out").exists()


def test_a_table_shows_brackets_as_they_are(capsys) -> None:
    table = Table("name")
    table.add_row("[bold]x[/bold] [/] :smile: 12")
    print_table(table)
    assert "[bold]x[/bold] [/] :smile: 12" in capsys.readouterr().out


def test_what_is_told_does_not_steer_the_terminal(capsys) -> None:
    echo("a\x1b[2Jb")
    note("c\x9b2Jd")
    emit_json({"name": "e\x9bf\x1b"})
    out, err = capsys.readouterr()
    assert out.startswith("a\\x1b[2Jb\n")
    assert err == "c\\x9b2Jd\n"
    assert json.loads(out.partition("\n")[2]) == {"name": "e\x9bf\x1b"}
    assert "\x9b" not in out
