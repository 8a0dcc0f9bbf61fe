"""What a run says of its own weights is what an independent sum over them says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.align.result import card, drift, order_of, part_of
from mergetool.checkpoint.manifest import Manifest
from tests.checkpoint.test_manifest import OLD_ALIGNMENT
from tests.helpers import random_weights, write_checkpoint


def test_drift_is_the_distance_to_sft_in_all_by_layer_and_along_its_delta(tmp_path: Path) -> None:
    base = random_weights(0)
    sft = random_weights(1, near=base)
    new = {name: tensor + 0.25 * (tensor - base[name]) for name, tensor in sft.items()}
    paths = [write_checkpoint(tmp_path / name, w) for name, w in (("new", new), ("sft", sft), ("base", base))]
    found = drift(*paths)
    flat = torch.cat([(new[n] - sft[n]).double().flatten() for n in sft])
    assert found["norm"] == pytest.approx(float(flat.norm()), rel=1e-6)
    assert found["along_tau"] == pytest.approx(0.25, rel=1e-4)
    assert sum(value**2 for value in found["layers"].values()) == pytest.approx(found["norm"] ** 2, rel=1e-9)
    assert list(found["layers"]) == ["embed_tokens", "layer 0", "layer 1", "layer 2", "norm"]


def test_layers_are_ordered_by_number_between_embedding_and_head() -> None:
    names = ["lm_head.weight", "model.layers.10.mlp.up_proj.weight", "model.layers.2.a.weight", "transformer.wte.weight"]
    assert sorted(map(part_of, names), key=order_of) == ["wte", "layer 2", "layer 10", "lm_head"]


def test_a_card_says_what_was_trained_and_how_much_was_merged() -> None:
    text = card(Manifest.from_json(OLD_ALIGNMENT))
    assert "Trained by mergetool 0.1.0 from `org/sft`: DPO with onties, 6 merges (every 1 steps)" in text
    assert "sha256 of model.safetensors: `c`" in text
