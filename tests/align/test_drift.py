"""The drift of a live model is the distance of its weights to the SFT checkpoint's, layer by layer."""

from __future__ import annotations

import pytest

from mergetool.align.drift import Drift


def test_it_is_the_norm_of_what_was_added_and_zero_where_nothing_was(triple) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(triple / "sft")
    drift = Drift(triple / "sft")
    still = drift.layers(model)
    assert list(still) == ["embed_tokens", "layer 0", "layer 1", "norm"]
    assert set(still.values()) == {0.0}
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.add_(0.5)
    moved = drift.layers(model)
    assert moved["layer 1"] == pytest.approx(0.5 * model.model.layers[1].mlp.up_proj.weight.numel() ** 0.5)
    assert moved["layer 0"] == 0.0
