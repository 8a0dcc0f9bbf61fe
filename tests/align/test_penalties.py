"""Penalties add their gradient to the loss' own, after clipping and before the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from mergetool.align.penalties import ewc_penalty, l1_penalty, l2_penalty


def pulled(triple: Path, penalty: Callable[[torch.optim.Optimizer], None], start: float = 0.5) -> tuple[dict, dict]:
    """(theta - theta_s, the gradient's change) by name, of one step from theta_s with every second entry moved."""
    model = AutoModelForCausalLM.from_pretrained(triple / "sft")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            flat = p.view(-1)[::2]
            flat.add_(torch.randn_like(flat))
            p.grad = torch.full_like(p, start)
    away = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([{"params": list(model.named_parameters())}], lr=0.0)
    penalty(optimizer)
    optimizer.step()
    return away, {name: p.grad - start for name, p in model.named_parameters()}


def test_l2_pulls_by_the_distance(triple) -> None:
    away, added = pulled(triple, lambda optimizer: l2_penalty(optimizer, triple / "sft", 3.0))
    assert all(torch.allclose(added[name], 3 * away[name], atol=1e-6) for name in away)


def test_l1_pulls_by_its_strength_toward_the_sft_model_and_not_at_all_where_it_is_there(triple) -> None:
    away, added = pulled(triple, lambda optimizer: l1_penalty(optimizer, triple / "sft", 3.0))
    for name in away:
        assert torch.equal(added[name][away[name] > 0].unique(), torch.tensor([3.0]))
        assert torch.equal(added[name][away[name] < 0].unique(), torch.tensor([-3.0]))
        assert not added[name][away[name] == 0].any()
        assert (away[name] == 0).any()


def test_ewc_pulls_each_entry_by_its_own_importance_and_with_an_importance_of_one_is_l2(triple, tmp_path) -> None:
    shapes = {n: p.shape for n, p in AutoModelForCausalLM.from_pretrained(triple / "sft").named_parameters()}
    torch.manual_seed(1)
    some = {name: torch.rand(shape) for name, shape in shapes.items()}
    save_file(some, tmp_path / "some")
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, tmp_path / "ones")
    away, added = pulled(triple, lambda optimizer: ewc_penalty(optimizer, triple / "sft", 3.0, tmp_path / "some"))
    assert all(torch.allclose(added[name], 3 * some[name] * away[name], atol=1e-6) for name in away)
    _, ones = pulled(triple, lambda optimizer: ewc_penalty(optimizer, triple / "sft", 3.0, tmp_path / "ones"))
    _, l2 = pulled(triple, lambda optimizer: l2_penalty(optimizer, triple / "sft", 3.0))
    assert all(torch.equal(ones[name], l2[name]) for name in l2)
