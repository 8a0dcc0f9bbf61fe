"""What goes to mergekit is held to the same rules: no finished work of another run is removed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.checkpoint.manifest import Manifest
from mergetool.checkpoint.working_directory import partial_directory
from mergetool.errors import OutputError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint, write_triple


def plan(triple: dict[str, Path]):
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    return plan_merge(MergeRecipe(merge_method="linear", models=models), engine="mergekit")


def test_mergekit_does_not_remove_an_interrupted_run_unless_asked_and_leaves_one_result(tmp_path: Path) -> None:
    triple, out = write_triple(tmp_path / "in"), tmp_path / "out"
    partial_directory(out).mkdir()
    (partial_directory(out) / "journal.jsonl").write_text("finished work")
    with pytest.raises(OutputError, match="--fresh"):
        merge_to_directory(plan(triple), out)
    assert (partial_directory(out) / "journal.jsonl").read_text() == "finished work"
    manifest = merge_to_directory(plan(triple), out, fresh=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    read = Manifest.read(out)
    assert (read.engine, read.reason, read.fingerprint) == ("mergekit", "asked for", None)
    assert read.to_json() == manifest
    assert {"config.json", "tokenizer.json"} <= set(read.files or ())
    with pytest.raises(OutputError, match="another result"):
        merge_to_directory(plan(triple), out)


def test_an_error_of_mergekit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergetool.merge import mergekit

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mergekit, "run", fail)
    triple = write_triple(tmp_path / "in")
    with pytest.raises(KeyboardInterrupt):
        merge_to_directory(plan(triple), tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("orthogonal", [True, False])
def test_model_stock_says_where_orthogonal_deltas_leave_the_base(tmp_path: Path, orthogonal: bool) -> None:
    base = random_weights(0)
    write_checkpoint(tmp_path / "base", base)
    for i, name in enumerate("ab"):
        write_checkpoint(tmp_path / name, random_weights(1 + i if orthogonal else 1, near=base))
    models = [{"model": str(tmp_path / name)} for name in "ab"]
    recipe = MergeRecipe.model_validate({"merge_method": "model_stock", "base_model": str(tmp_path / "base"), "models": models})
    warnings = merge_to_directory(plan_merge(recipe), tmp_path / "out")["warnings"]
    assert any("near orthogonal" in line for line in warnings) is orthogonal
