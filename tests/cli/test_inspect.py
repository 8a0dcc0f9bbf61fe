"""mergetool inspect: layers for people, tensors for programs, a picture."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from mergetool.cli.main import app
from tests.cli.shell import run


def test_inspect_shows_each_layer_and_draws_a_heat_map(triple: dict[str, Path], tmp_path: Path) -> None:
    words = ["inspect", triple["rlhf"], "--base", triple["base"], "--with", triple["sft"]]
    out, _ = run(*words, "--plot", tmp_path / "map.png")
    assert "model.layers.2" in out
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads(run(*words, "--json")[0])
    assert {r["name"] for r in rows} >= {"model.embed_tokens.weight"}
    assert all(0 <= r["sign_agreement"] <= 1 for r in rows)
    assert all(r["delta_norm"] > 0 for r in rows)


def test_a_second_model_needs_the_base_that_both_came_from(triple: dict[str, Path]) -> None:
    refused = CliRunner().invoke(app, ["inspect", str(triple["sft"]), "--with", str(triple["rlhf"])])
    assert refused.exit_code == 2
    assert refused.stderr.strip() == "mergetool: --with compares two task vectors and needs --base; add --base BASE"


def test_a_row_a_tensor_is_shown_where_it_is_asked_for(triple: dict[str, Path]) -> None:
    out, _ = run("inspect", triple["sft"], "--tensors")
    assert "model.layers.0.mlp.down_proj.weight" in out.replace("\n", "") or "32×48" in out
    assert out.splitlines()[-1].startswith("29 tensors")
