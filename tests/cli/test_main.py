"""The program's entry: every command is there, and its help is fast."""

from __future__ import annotations

import subprocess
import sys

from typer.testing import CliRunner

import mergetool
from mergetool.cli.main import app
from tests.cli.shell import run


def test_help_is_fast_because_heavy_imports_live_inside_commands() -> None:
    script = (
        "import sys, mergetool.cli.main\n"
        "heavy = {'torch', 'transformers', 'trl', 'numpy', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_version_is_the_packages() -> None:
    assert run("--version")[0] == f"mergetool {mergetool.__version__}\n"


def test_every_command_explains_itself_and_its_options() -> None:
    names = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert names == [
        "demo",
        "pick",
        "init",
        "merge",
        "extract",
        "align",
        "compare",
        "ama",
        "calibrate",
        "evaluate",
        "check",
        "inspect",
        "push",
        "methods",
        "metrics",
        "schema",
        "env",
    ]
    for name in [*names, "recipes"]:
        assert "Usage" in run(name, "--help")[0]


def test_a_wrong_option_is_exit_code_2() -> None:
    assert CliRunner().invoke(app, ["merge", "--colour"]).exit_code == 2


def test_python_m_mergetool_is_the_program() -> None:
    found = subprocess.run([sys.executable, "-m", "mergetool", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout == f"mergetool {mergetool.__version__}\n"
