"""mergetool methods prints the table of methods."""

from __future__ import annotations

import json

from tests.cli.shell import run


def test_methods_lists_the_table() -> None:
    assert {row["method"] for row in json.loads(run("methods", "--json")[0])} >= {"linear", "ties", "dare_ties", "della"}
    assert "2306.01708" in run("methods")[0]
