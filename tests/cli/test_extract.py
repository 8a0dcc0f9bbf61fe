"""The command makes an adapter, and says what it keeps; `merge --adapter` too."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.cli.shell import run


def test_the_labs_alignment_as_an_adapter(tmp_path: Path) -> None:
    _, said = run("extract", "lab:rlhf", "lab:sft", tmp_path / "a", "--rank", "8")
    assert "of the norm of the change" in said
    facts = json.loads((tmp_path / "a/mergetool.json").read_text())["adapter"]
    assert 0.1 < facts["norm_kept"] < 1
    models = [{"model": f"lab:sft+{tmp_path / 'a'}", "parameters": {"weight": 1.0}}]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    out, _ = run("merge", tmp_path / "r.yaml", tmp_path / "b", "--adapter", "--rank", "4", "--json")
    assert json.loads(out)["adapter"]["rank"] == 4
