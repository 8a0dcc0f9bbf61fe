"""Runs a command in this process, as the tests of the commands do."""

from __future__ import annotations

from typer.testing import CliRunner

from mergetool.cli.main import app


def run(*words: object) -> tuple[str, str]:
    """A command that succeeds: what it wrote to stdout and to stderr."""
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def refusal(*words: object) -> str:
    """A command that the user has to correct: exit code 2, nothing on stdout, and the last line of stderr."""
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith("mergetool: ")
    assert ";" in line, "no next step"
    return line
