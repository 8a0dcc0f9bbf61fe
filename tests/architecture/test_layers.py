"""Layers are counted by how names are built: the outermost number of a module that has modules."""

from __future__ import annotations

import pytest

from mergetool.architecture.layers import Stacks


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.mlp.up_proj.weight", ("model.layers", 3)),
        ("transformer.h.0.attn.c_attn.bias", ("transformer.h", 0)),
        ("encoder.block.1.layer.0.SelfAttention.q.weight", ("encoder.block", 1)),
        ("model.layers.2.mlp.experts.7.w1.weight", ("model.layers", 2)),
        ("layers.1.norm.weight", ("layers", 1)),
        ("model.layers.3.layer_scalar", ("model.layers", 3)),
        ("projector.0.weight", None),
        ("model.embed_tokens.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_the_layer_of_a_tensor(name: str, place: tuple[str, int] | None) -> None:
    stacks = Stacks([name, "model.layers.0.norm.weight", "projector.2.bias"])
    assert stacks.place(name) == place


def test_height_is_the_share_of_the_depth_and_a_layer_behind_the_last_counts_as_the_last() -> None:
    names = [f"model.layers.{i}.norm.weight" for i in range(4)]
    whole, without = Stacks(names), Stacks(names, names[:3])
    assert [whole.height(name) for name in names] == [0.0, 1 / 3, 2 / 3, 1.0]
    assert [without.height(name) for name in names] == [0.0, 0.5, 1.0, 1.0]
    assert whole.height("model.norm.weight") == 0.0
    assert Stacks(names[:1]).height(names[0]) == 1.0
