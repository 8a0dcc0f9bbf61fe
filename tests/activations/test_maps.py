"""Which weight reads what, in models of several families."""

from __future__ import annotations

import pytest
import torch

from mergetool.activations.maps import Use, watching
from tests.activations.models import CONFIGS, live, sequences


def uses(family: str) -> dict[str, set[str]]:
    """tensor → roles, in one forward pass."""
    model, found = live(family), {}
    with torch.no_grad(), watching(model, lambda use: found.setdefault(use.tensor, set()).add(use.role)):
        model(input_ids=torch.tensor([sequences()[4]]))
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_every_weight_is_seen(family: str) -> None:
    seen, model = uses(family), live(family)
    # GPT-OSS adds its experts' biases by indexing, and its sinks are no map
    other = {n for n, _ in model.named_parameters() if n.endswith(("_proj_bias", ".sinks"))}
    assert {n for n, _ in model.named_parameters()} - set(seen) == other


def test_transposed_weights_are_told_from_upright_ones() -> None:
    assert uses("gpt2")["transformer.h.0.mlp.c_fc.weight"] == {"rows"}
    assert uses("gpt2")["transformer.h.0.mlp.c_fc.bias"] == {"constant"}
    assert uses("gpt_oss")["model.layers.0.mlp.experts.down_proj"] == {"rows"}
    assert uses("qwen3_moe")["model.layers.0.mlp.experts.down_proj"] == {"columns"}
    assert uses("llama")["model.layers.0.mlp.down_proj.weight"] == {"columns"}


def test_a_tied_embedding_is_read_by_token_and_by_column() -> None:
    assert uses("llama")["model.embed_tokens.weight"] == {"tokens", "columns"}


def test_an_expert_reads_the_tokens_that_are_routed_to_it() -> None:
    model, routed, seen = live("qwen3_moe"), {}, {}

    def router(_: object, args: tuple, kwargs: dict) -> None:
        hidden, experts = args[0], args[1]
        for e in range(4):
            routed[e] = hidden[(experts == e).any(-1)]

    def listen(use: Use) -> None:
        if use.tensor == "model.layers.0.mlp.experts.gate_up_proj":
            seen[use.expert] = use.x

    block = model.model.layers[0].mlp.experts.register_forward_pre_hook(router, with_kwargs=True)
    with torch.no_grad(), watching(model, listen):
        model(input_ids=torch.tensor([sequences()[4]]))
    block.remove()
    for e, x in routed.items():
        if x.shape[0]:
            assert torch.allclose(seen[e].sort(0).values, x.sort(0).values)
    assert len(seen) > 1


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_input_of_a_gain_is_what_it_multiplies(family: str) -> None:
    model, seen = live(family), {}
    name, norm = next((n, m) for n, m in model.named_modules() if "norm" in n.rpartition(".")[2] or n.endswith("ln_1"))
    before = []
    hook = norm.register_forward_pre_hook(lambda _, args: before.append(args[0]))
    with torch.no_grad(), watching(model, lambda use: seen.setdefault(use.tensor, use.x)):
        model(input_ids=torch.tensor([sequences()[0]]))
        hook.remove()
        x, gain = before[0], norm.weight
        direction = torch.randn(gain.shape, generator=torch.Generator().manual_seed(2))
        expected = torch.func.functional_call(norm, {"weight": gain + direction}, (x,)) - norm(x)
    assert (seen[f"{name}.weight"] * direction - expected).abs().max() < 1e-5


def test_watching_leaves_the_model_as_it_was() -> None:
    model = live("qwen3_moe")
    ids = torch.tensor([sequences()[0]])
    before, hooks = model(input_ids=ids).logits, sum(len(m._forward_hooks) for m in model.modules())
    with watching(model, lambda use: None):
        model(input_ids=ids)
    assert torch.equal(model(input_ids=ids).logits, before)
    assert sum(len(m._forward_hooks) for m in model.modules()) == hooks
