"""One schema of mergetool.json; the two older forms are read as it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.checkpoint.manifest import Input, Manifest
from mergetool.errors import CheckpointError
from mergetool.hub.card import completed, licences, merge_card, metadata

OLD_MERGE = {
    "mergetool": "0.1.0", "kind": "merge", "engine": "native", "fingerprint": "f" * 64,
    "recipe": {"merge_method": "linear", "models": [{"model": "org/sft"}, {"model": "/models/rlhf"}], "seed": 0},
    "seed": 0, "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "inputs": [
        {"model": "org/sft", "revision": "0123456789abcdef", "license": "mit", "headers_sha256": {"model.safetensors": "a"}},
        {"model": "/models/rlhf", "license": "mit", "headers_sha256": {"model.safetensors": "b"}},
    ],
    "outputs_sha256": {"model.safetensors": "c"}, "dtype": "bfloat16", "distances": {"org/sft": 1.5, "/models/rlhf": 2.5},
    "kept": {}, "warnings": [],
}  # fmt: skip
OLD_ALIGNMENT = {
    "fingerprint": "0123456789abcdef", "command": "align", "name": "out",
    "recipe": {
        "base_model": "org/base", "sft_model": "org/sft", "algorithm": "dpo", "beta": 0.1,
        "data": {"train": "org/pairs:train"}, "merging": {"method": "onties", "alpha": 0.1},
    },
    "steps": 6, "merging": {"method": "onties", "every": 1, "alpha": 0.1, "merges": 6, "merged_total": 0.6},
    "metrics": {"loss": 0.5}, "drift": {"norm": 1.0, "relative": 0.1, "layers": {"layer 0": 1.0}},
    "data": {"train": "6 rows"}, "dtype": "float32", "seeds": {"training": 42, "merging": 0},
    "inputs": {"base": {"model.safetensors": "b"}, "sft": {"model.safetensors": "a"}},
    "origins": [{"model": "org/sft", "revision": "0123", "license": "mit"}, {"model": "org/base", "license": "mit"}],
    "outputs_sha256": {"model.safetensors": "c"}, "versions": {"mergetool": "0.1.0", "torch": "2.13.0"},
}  # fmt: skip


def test_an_old_merge_is_read() -> None:
    found = Manifest.from_json(OLD_MERGE)
    assert (found.schema, found.kind, found.seed, found.engine) == (1, "merge", 0, "native")
    assert found.inputs[0] == Input("org/sft", None, "0123456789abcdef", "mit", headers_sha256={"model.safetensors": "a"})
    assert licences(found) == ({"license": "mit"}, "")
    assert "| org/sft | 0123456789ab | mit | 1.5 |" in merge_card(found)


def test_an_old_alignment_is_read() -> None:
    found = Manifest.from_json(OLD_ALIGNMENT)
    assert (found.schema, found.kind, found.steps, found.mergetool) == (1, "align", 6, "0.1.0")
    assert [(one.role, one.model, one.headers_sha256) for one in found.inputs] == [
        ("sft", "org/sft", {"model.safetensors": "a"}),
        ("base", "org/base", {"model.safetensors": "b"}),
    ]
    assert metadata(found)["base_model"] == ["org/sft"]
    assert metadata(found)["datasets"] == ["org/pairs"]
    assert "finetune" in completed("", found, (), "out")


@pytest.mark.parametrize("old", [OLD_MERGE, OLD_ALIGNMENT], ids=["merge", "align"])
def test_what_is_written_is_read_back(tmp_path: Path, old: dict) -> None:
    from dataclasses import replace

    written = replace(Manifest.from_json(old), schema=2, files=["config.json"])
    written.write(tmp_path)
    assert Manifest.read(tmp_path) == written
    raw = json.loads((tmp_path / "mergetool.json").read_text())
    assert raw == written.to_json()
    assert raw["schema"] == 2
    assert ("steps" in raw) == (old is OLD_ALIGNMENT)
    assert ("distances" in raw) == (old is OLD_MERGE)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "has no mergetool.json"),
        ("{", "cannot be read"),
        ("[]", "is not an account"),
        ('{"kind": "merge"}', "is not an account"),
        ('{"recipe": {}, "kind": "merge", "schema": 3}', "is of schema 3, and this version knows 2"),
        ('{"recipe": {}, "kind": "merge", "inputs": 3}', "inputs that are no list"),
        ('{"recipe": {}, "schema": 2}', "kind"),
    ],
)
def test_what_cannot_be_understood_is_one_line(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "mergetool.json").write_text(text)
    with pytest.raises(CheckpointError, match=says):
        Manifest.read(tmp_path)
