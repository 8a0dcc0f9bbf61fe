"""K counts the optimizer's steps: a parameter without a gradient in some of them is merged with the others at the K-th."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES
from tests.optim.plain import dare, ties

SHAPES = {"a": (50, 20), "b": (10, 30), "c": (40,)}
TAU = {name: torch.randn(s, generator=torch.Generator().manual_seed(5)) * 1e-3 for name, s in SHAPES.items()}


def sgd(params: Any, lr: float, **kw: Any) -> OnlineMerge:
    return OnlineMerge(torch.optim.SGD(params, lr=lr), **kw)


MAKES: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "OnDARE": (OnDARE, {"density": 0.5}),
    "OnDARE by entries": (OnDARE, {"density": 0.02, "weight_decay": 0.1}),
    "OnTIES": (OnTIES, {"density": 0.2}),
    "OnTIES by entries": (OnTIES, {"density": 0.02}),
    "OnLinear": (OnLinear, {}),
    "AdamW itself": (OnDARE, {"density": 1.0, "alpha": 0.0}),
    "around SGD": (sgd, {"density": 0.5}),
    "linear around SGD": (sgd, {"method": "linear"}),
}


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter((torch.randn(s, generator=rng) * 0.02).to(dtype)) for name, s in SHAPES.items()}


def made(kind: str, params: dict[str, torch.nn.Parameter], **kw: Any) -> Any:
    make, how = MAKES[kind]
    return make(list(params.items()), **{"lr": 1e-2, "alpha": 0.1, "seed": 3, "reference": TAU, **how, **kw})


def has(name: str, step: int) -> bool:
    """b misses every third step, c takes part from the fifth on and then every fourth."""
    return name == "a" or (name == "b" and step % 3 != 1) or (name == "c" and step >= 4 and step % 4 == 0)


def run(optimizer: Any, params: dict[str, torch.nn.Parameter], first: int, last: int, takes: Callable = has) -> None:
    for step in range(first, last):
        for name, p in params.items():
            rng = torch.Generator().manual_seed(100 * step + ord(name))
            p.grad = (torch.randn(SHAPES[name], generator=rng) * 1e-2).to(p.dtype) if takes(name, step) else None
        optimizer.step()


def merged_at(name: str, every: int, steps: int) -> list[int]:
    """The K-th steps, counted from 1, in whose window a parameter had a gradient."""
    return [end for end in range(every, steps + 1, every) if any(has(name, step) for step in range(end - every, end))]


@pytest.mark.parametrize("every", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("kind", ["OnDARE", "OnTIES", "around SGD"])
def test_what_is_merged_is_what_merged_says_weighted_by_entries(kind: str, every: int) -> None:
    params, ones = parameters(), {name: torch.ones(s) for name, s in SHAPES.items()}
    for p in params.values():
        p.data.zero_()
    optimizer = made(kind, params, density=1.0, alpha=0.01, lr=1e-30, every=every, reference=ones)
    for step in range(20):
        for name, p in params.items():
            p.grad = torch.zeros_like(p) if has(name, step) else None
        optimizer.step()
    counts = {name: len(merged_at(name, every, 20)) for name in params}
    for name, p in params.items():
        assert p.mean().item() == pytest.approx(0.01 * counts[name], rel=1e-4), name
    entries = {name: p.numel() for name, p in params.items()}
    share = sum(0.01 * counts[name] * n for name, n in entries.items()) / sum(entries.values())
    assert optimizer.merged == pytest.approx((20 // every, share, share))
    assert optimizer.planned(20) == pytest.approx((20 // every, 0.01 * (20 // every), 0.01 * (20 // every)))


@pytest.mark.parametrize("kind", ["around SGD", "OnTIES"])
def test_each_merge_is_the_equation_applied_to_what_the_window_added(kind: str) -> None:
    """[OMO] Algorithm 2 with Δ_c summed up over the steps that a parameter made; the merge's number counts windows."""
    every, steps, params = 4, 12, parameters(torch.float64)
    theta = {name: p.detach().clone() for name, p in params.items()}
    added = {name: torch.zeros_like(t) for name, t in theta.items()}
    m = {name: (torch.zeros_like(t), torch.zeros_like(t), 0) for name, t in theta.items()}
    optimizer = made(kind, params, every=every)
    run(optimizer, params, 0, steps)
    for step in range(steps):
        for name in theta:
            if has(name, step):
                rng = torch.Generator().manual_seed(100 * step + ord(name))
                g = (torch.randn(SHAPES[name], generator=rng) * 1e-2).double()
                first, second, t = m[name]
                first, second, t = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g, t + 1
                m[name] = (first, second, t)
                adam = first / (1 - 0.9**t) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
                added[name] += -1e-2 * (g if kind == "around SGD" else adam)
            if (step + 1) % every == 0 and step + 1 in merged_at(name, every, steps):
                tau = TAU[name].double()
                if kind == "around SGD":
                    total = dare(added[name], tau, 0.5, 0.1, "unbiased", (3, step // every, name))
                else:
                    total = ties(added[name], tau, 0.2, 0.1, "weighted")
                theta[name], added[name] = theta[name] + total, torch.zeros_like(total)
    for name, p in params.items():
        torch.testing.assert_close(p.detach(), theta[name] + added[name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("every", [1, 3, 4])
@pytest.mark.parametrize("kind", MAKES)
def test_stopped_anywhere_it_goes_on_bit_for_bit(kind: str, every: int, dtype: torch.dtype) -> None:
    whole = parameters(dtype)
    right = made(kind, whole, every=every)
    run(right, whole, 0, 13)
    for stop in (3, 6, 7, 10):
        half = parameters(dtype)
        optimizer = made(kind, half, every=every)
        run(optimizer, half, 0, stop)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        again = {name: torch.nn.Parameter(p.detach().clone()) for name, p in half.items()}
        other = made(kind, again, every=every)
        other.load_state_dict(torch.load(file, weights_only=True))
        run(other, again, stop, 13)
        assert all(torch.equal(again[name], whole[name]) for name in whole), stop
        assert other.merged == right.merged
    for how in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        for p in half.values():
            p.grad = None
        other = how(optimizer)
        again = dict(zip(half, other.param_groups[0]["params"], strict=True))
        run(other, again, 10, 13)
        assert all(torch.equal(again[name], whole[name]) for name in whole)


@pytest.mark.parametrize("kind", MAKES)
def test_where_every_parameter_takes_part_in_every_step_no_state_has_a_count_of_its_own(kind: str) -> None:
    params = parameters()
    optimizer = made(kind, params, every=3)
    run(optimizer, params, 0, 4, lambda name, step: True)
    kept = set(optimizer.state[params["a"]])
    assert ("merge_step" in kept) == ("around" in kind)


def test_a_parameter_without_any_gradient_is_left_alone_and_counts_as_not_merged() -> None:
    params = parameters()
    before = params["c"].detach().clone()
    optimizer = made("OnDARE", params, every=2)
    run(optimizer, params, 0, 4, lambda name, step: name == "a")
    assert torch.equal(params["c"], before)
    assert optimizer.merged.alpha == pytest.approx(0.2 * 1000 / 1340)


def test_a_frozen_parameter_does_not_count() -> None:
    params = parameters()
    params["c"].requires_grad_(False)
    params["b"].requires_grad_(False)
    optimizer = made("OnDARE", params, every=2)
    run(optimizer, params, 0, 4, lambda name, step: name == "a")
    assert optimizer.merged == optimizer.planned(4)


def test_a_group_that_joins_later_is_merged_when_the_others_are() -> None:
    params = parameters()
    optimizer = made("OnDARE", {"a": params["a"]}, every=4, density=1.0, lr=1e-30, alpha=0.5)
    run(optimizer, {"a": params["a"]}, 0, 3)
    optimizer.add_param_group({"params": [("b", params["b"])]})
    before = params["b"].detach().clone()
    run(optimizer, {"a": params["a"], "b": params["b"]}, 3, 4, lambda name, step: True)
    torch.testing.assert_close(params["b"].detach(), before + 0.5 * TAU["b"])


def test_groups_of_several_intervals_are_weighted_by_their_entries() -> None:
    params = parameters()
    groups = [{"params": [("a", params["a"])], "every": 2}, {"params": [("b", params["b"])], "every": 3, "alpha": 0.2}]
    optimizer = OnDARE(groups, lr=1e-2, density=0.5, alpha=0.1, reference=TAU)
    run(optimizer, {"a": params["a"], "b": params["b"]}, 0, 6, lambda name, step: True)
    share = (1000 * 0.3 + 300 * 0.4) / 1300
    assert optimizer.merged == pytest.approx((3, share, share))
    assert optimizer.planned(6) == pytest.approx(optimizer.merged)
