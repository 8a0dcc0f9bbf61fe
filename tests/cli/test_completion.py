"""The shell completes names of recipes, kinds, engines and metrics, as a real shell asks for them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mergetool.cli.completion import engines, metric_names, recipe_kinds, recipe_names
from mergetool.config.packaged import list_recipes


def test_each_function_gives_the_names_that_open_with_what_is_typed() -> None:
    assert recipe_names("") == [f"{kind}/{name}" for kind, name in list_recipes()]
    assert recipe_names("merge/ti") == ["merge/ties"]
    assert recipe_kinds("a") == ["align", "ama"]
    assert engines("n") == ["native"]
    assert metric_names("nll,exa") == ["nll,exact_match"]
    assert metric_names("zzz") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_that_asks_gets_them(shell: str) -> None:
    words = "mergetool recipes show merge/ti"
    asked = {"COMP_WORDS": words, "COMP_CWORD": "3"} if shell == "bash" else {"_TYPER_COMPLETE_ARGS": words}
    asked |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    done = subprocess.run(
        [sys.executable, "-m", "mergetool"], env={**os.environ, "_MERGETOOL_COMPLETE": f"complete_{shell}", **asked},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "merge/ties" in done.stdout
