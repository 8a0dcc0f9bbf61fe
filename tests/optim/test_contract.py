"""The optimizers keep torch's contract: groups, state_dict, closures, schedulers, scaling, copies, clear refusals."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

from mergetool.errors import MergetoolError, RecipeError
from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES
from tests.optim.scenes import deltas, parameters, run, values

ALL = [
    (OnDARE, {"density": 0.01}),
    (OnDARE, {"density": 0.3, "tau_mask": "fixed"}),
    (OnDARE, {"density": 0.01, "tau_mask": "fixed", "every": 3, "weight_decay": 0.1}),
    (OnTIES, {"density": 0.01}),
    (OnTIES, {"density": 0.3, "every": 3}),
    (OnLinear, {"every": 2}),
]


def wrapped(params: list, **kw) -> OnlineMerge:
    kw.pop("lr")
    return OnlineMerge(torch.optim.SGD(params, lr=1e-2, momentum=0.9), **kw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("cls", "extra"), [*ALL, (wrapped, {"every": 3}), (wrapped, {"method": "ties"})])
def test_n_steps_resumed_for_n_more_are_2n_steps_bit_for_bit(cls, extra: dict, dtype: torch.dtype) -> None:
    settings = {"lr": 1e-3, "alpha": 0.01, "reference": deltas(), "seed": 4} | extra
    whole = parameters(dtype=dtype)
    run(cls(whole, **settings), whole, 8)

    half = parameters(dtype=dtype)
    first = cls(half, **settings)
    run(first, half, 4)
    file = io.BytesIO()
    torch.save({"optimizer": first.state_dict(), "model": values(half)}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    rest = parameters(seed=99, dtype=dtype)
    for name, p in rest:
        p.data.copy_(saved["model"][name])
    second = cls(rest, **settings)
    second.load_state_dict(saved["optimizer"])
    run(second, rest, 4, first=4)
    for (name, a), (_, b) in zip(whole, rest, strict=True):
        assert torch.equal(a, b), name
    assert second.merged == cls_merged(whole, settings, cls)


def cls_merged(params: list, settings: dict, cls) -> tuple:
    again = cls(params, **settings)
    run(again, params, 8)
    return again.merged


@pytest.mark.parametrize(("cls", "extra"), ALL)
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_goes_on_as_the_original_does(cls: type, extra: dict, how) -> None:
    ours = parameters()
    optimizer = cls(ours, lr=1e-3, alpha=0.01, reference=deltas(), **extra)
    run(optimizer, ours, 2)
    other = how(optimizer)
    theirs = list(zip([n for n, _ in ours], other.param_groups[0]["params"], strict=True))
    run(optimizer, ours, 4, first=2)
    run(other, theirs, 4, first=2)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert a is not b
        assert torch.equal(a, b), name


def test_a_closure_is_called_with_gradients_and_its_loss_returned() -> None:
    layer = torch.nn.Linear(8, 2)
    optimizer = OnDARE(layer.named_parameters(), lr=1e-2, density=0.5)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = layer(torch.ones(3, 8)).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) > optimizer.step(closure)


@pytest.mark.parametrize("make", [OnDARE, wrapped])
def test_schedulers_set_the_step_and_a_step_at_lr_zero_changes_nothing(make) -> None:
    ours = parameters()
    optimizer = make(ours, lr=1e-3, alpha=0.1, reference=deltas(), density=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0 if step == 0 else 1.0)
    before = values(ours)
    run(optimizer, ours, 1)
    for name, p in ours:
        assert torch.equal(p, before[name]), name
    assert optimizer.merged.merges == 0
    scheduler.step()
    run(optimizer, ours, 1, first=1)
    assert any((p != before[name]).any() for name, p in ours)
    assert optimizer.merged.merges == 1


def test_grad_scaler_skips_a_step_with_infinite_gradients() -> None:
    layer = torch.nn.Linear(8, 2)
    optimizer = OnTIES(layer.named_parameters(), lr=1e-2, density=0.5)
    scaler = torch.amp.GradScaler("cpu")
    for factor, moves in ((float("inf"), False), (1.0, True)):
        before = layer.weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale((layer(torch.ones(3, 8)) * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(before, layer.weight) != moves


def test_parameters_without_gradients_are_left_alone_and_zero_grad_works() -> None:
    ours = parameters()
    optimizer = OnDARE(ours, lr=1e-3, alpha=0.5, density=1.0, reference=deltas())
    before = values(ours)
    ours[1][1].grad = torch.ones_like(ours[1][1])
    optimizer.step()
    for i, (name, p) in enumerate(ours):
        assert torch.equal(p, before[name]) == (i != 1), name
    optimizer.zero_grad()
    assert ours[1][1].grad is None


def test_groups_have_their_own_settings() -> None:
    ours = parameters()
    groups = [
        {"params": ours[:1], "density": 1.0, "weight_decay": 0.1, "lr": 1e-2},
        {"params": ours[1:], "alpha": 0.0},
    ]
    optimizer = OnDARE(groups, lr=1e-3, alpha=0.1, density=0.01, reference=deltas())
    assert [g["density"] for g in optimizer.param_groups] == [1.0, 0.01]
    before = values(ours)
    run(optimizer, ours, 1)
    assert (ours[0][1] != before["embed.weight"]).float().mean() > 0.99
    assert (ours[1][1] != before["layer.weight"]).float().mean() < 0.03


def test_an_empty_parameter_and_a_second_group_are_served() -> None:
    ours = [("empty", torch.nn.Parameter(torch.zeros(0, 3)))]
    more = [("weight", torch.nn.Parameter(torch.ones(4)))]
    optimizer = OnTIES(ours, lr=1e-3, alpha=0.1, reference={"empty": torch.zeros(0, 3), "weight": torch.ones(4)})
    optimizer.add_param_group({"params": more})
    for _, p in ours + more:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert (more[0][1] != 1).any()


def test_a_sparse_gradient_is_refused() -> None:
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    optimizer = OnDARE(embedding.named_parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(MergetoolError, match=r"weight has a sparse gradient.*sparse=False"):
        optimizer.step()


def test_flattened_parameters_are_refused() -> None:
    ours = parameters()
    optimizer = OnDARE(ours, alpha=0.1, reference=deltas())
    flat = torch.nn.Parameter(torch.cat([p.detach().flatten() for _, p in ours]))
    flat.grad = torch.zeros_like(flat)
    optimizer.param_groups[0]["params"] = [flat]  # what a ZeRO optimizer does to the one it wraps
    with pytest.raises(RecipeError, match="flattened"):
        optimizer.step()
    with pytest.raises(RecipeError, match=r"no names.*ZeRO"):
        OnDARE([flat], alpha=0.1, reference=deltas())
    flat.ds_id = 0
    flat.data = torch.zeros(0)
    with pytest.raises(MergetoolError, match="ZeRO-3"):
        OnDARE([("embed.weight", flat)], alpha=0.1, reference=deltas())
