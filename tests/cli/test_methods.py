"""`mergetool methods` prints the table."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from mergetool.cli.main import app
from mergetool.methods import METHODS


def test_every_row_is_printed_with_its_parts() -> None:
    rows = json.loads(CliRunner().invoke(app, ["methods", "--json"]).stdout)
    assert [row["method"] for row in rows] == list(METHODS)
    ties = next(row for row in rows if row["method"] == "ties")
    assert (ties["sparsifier"], ties["consensus"], ties["optimizer"]) == ("magnitude", "sign", "OnTIES")
    assert ties["parameters"] == ["density", "int8_mask", "lambda", "normalize", "rescale", "scope", "weight"]
    table = CliRunner().invoke(app, ["methods"], env={"COLUMNS": "200"}).stdout
    assert all(name in table for name in METHODS)
