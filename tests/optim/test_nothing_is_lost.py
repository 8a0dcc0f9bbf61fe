"""Divergence 6: what is far below an ulp of θ still arrives in expectation, in fp32 and in bf16."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim import OnDARE, OnLinear, OnTIES

ALPHA = 1e-7


def drift(
    cls: type, dtype: torch.dtype, density: float, steps: int, n: int, scale: float = 1e-2, **extra
) -> tuple[float, float, float]:
    """(measured Σ drift·sign(τ)/n, expected, its standard deviation) after `steps` steps with zero gradients."""
    rng = torch.Generator().manual_seed(0)
    theta = (torch.randn(n, generator=rng) * 0.02).to(dtype)
    theta[: n // 400] = 1.0  # norm weights stand on a power of two, where the spacing changes
    tau = torch.randn(n, generator=rng) * scale
    parameter = torch.nn.Parameter(theta.clone())
    optimizer = cls([("w", parameter)], lr=1e-6, density=density, alpha=ALPHA, reference={"w": tau}, **extra)
    parameter.grad = torch.zeros_like(parameter)
    for _ in range(steps):
        optimizer.step()
    kept = tau
    if cls is OnTIES:
        kept = torch.where(tau.abs() >= tau.abs().topk(int(density * n)).values[-1], tau, 0.0)
    sign = tau.sign().double()
    moved = (parameter.detach().double() - theta.double()) * sign
    merges = steps // extra.get("every", 1)
    amount = ALPHA * (kept.double() * sign)
    # an entry moves by a whole gap with probability amount/gap, so its variance is at most amount·gap; and its mask's
    gap = torch.exp2(torch.frexp(theta.double()).exponent.double() - 1) * torch.finfo(dtype).eps
    variance = merges * (amount * gap + amount.square() / density)
    return float(moved.mean()), float(merges * amount.mean()), float(variance.mean().div(n).sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("cls", "density", "extra"),
    [
        (OnDARE, 0.02, {}),
        (OnDARE, 0.02, {"tau_mask": "fixed"}),
        (OnDARE, 0.5, {}),
        (OnDARE, 1.0, {}),
        (OnDARE, 0.5, {"every": 4}),
        (OnTIES, 0.02, {}),
        (OnTIES, 0.5, {}),
        (OnDARE, 0.5, {"compile": True}),
        (OnTIES, 0.5, {"compile": True}),
    ],
)
def test_the_mean_drift_is_n_alpha_tau(dtype: torch.dtype, cls: type, density: float, extra: dict) -> None:
    measured, expected, error = drift(cls, dtype, density, 40, 400_000, **extra)
    assert expected > 0
    if extra.get("tau_mask") == "fixed":
        error += expected / (density * 400_000) ** 0.5  # which entries the one mask has is random too
    assert abs(measured - expected) < 4.5 * error, (measured, expected, error)
    assert error < 0.5 * expected  # the measurement says something


def test_rounded_to_nearest_the_same_merge_does_nothing() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        measured, expected, _ = drift(OnDARE, dtype, 1.0, 10, 100_000, scale=1e-3, rounding="nearest")
        assert abs(measured) < 0.2 * expected


def test_onlinear_drifts_toward_the_sft_model() -> None:
    n, steps = 400_000, 40
    theta = torch.full((n,), 0.02)
    sft = {"w": theta + 1e-2}
    for dtype in (torch.float32, torch.bfloat16):
        parameter = torch.nn.Parameter(theta.to(dtype).clone())
        start = parameter.detach().double().clone()
        optimizer = OnLinear([("w", parameter)], lr=1e-6, alpha=1e-6, reference=sft)
        parameter.grad = torch.zeros_like(parameter)
        for _ in range(steps):
            optimizer.step()
        moved = parameter.detach().double() - start
        expected = float((sft["w"].double() - start).mean()) * steps * 1e-6
        assert abs(float(moved.mean()) - expected) < 5 * float(moved.std()) / n**0.5 + 1e-4 * expected


@pytest.mark.parametrize(("density", "every"), [(1.0, 1), (1.0, 3), (0.1, 1), (0.02, 1)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_bf16_training_follows_the_fp32_run_in_expectation(density: float, every: int, weight_decay: float) -> None:
    n, steps, lr = 200_000, 30, 1e-6
    rng = torch.Generator().manual_seed(0)
    start = (torch.randn(n, generator=rng) * 0.02).bfloat16()
    moves = []
    for dtype in (torch.float32, torch.bfloat16):
        parameter = torch.nn.Parameter(start.to(dtype).clone())
        optimizer = OnDARE(
            [("w", parameter)], lr=lr, density=density, every=every, seed=2, weight_decay=weight_decay, rescale="none"
        )
        for step in range(steps):
            gradient = torch.randn(n, generator=torch.Generator().manual_seed(step)) * 1e-3 + 2e-3
            parameter.grad = gradient.bfloat16().to(dtype)
            optimizer.step()
        moves.append(parameter.detach().double() - start.double())
    error = float((moves[1] - moves[0]).std()) / n**0.5
    assert float(moves[0].mean()) < -0.5 * steps * lr * density
    assert abs(float(moves[1].mean() - moves[0].mean())) < 4.5 * error
    assert error < 0.5 * abs(float(moves[0].mean()))


def test_bf16_to_nearest_stands_still() -> None:
    parameter = torch.nn.Parameter(torch.full((1000,), 0.02).bfloat16())
    before = parameter.detach().clone()
    optimizer = OnDARE([("w", parameter)], lr=1e-6, density=1.0, rounding="nearest")
    for _ in range(10):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert torch.equal(parameter, before)
