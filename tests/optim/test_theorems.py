"""Theorems 1–4: what the optimizers are equal to, entry by entry."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops import masks, noise
from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES
from tests.optim.plain import PlainOnline, largest, random_kept
from tests.optim.scenes import deltas, gradients, parameters, run, values

LR = 1e-3
ULP = 2.0**-23


def adamw(params: list, **kw) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for _, p in params], lr=LR, fused=True, **kw)


@pytest.mark.parametrize("cls", [OnDARE, OnTIES])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_density_one_alpha_zero_is_adamw_bit_for_bit(cls: type, every: int, weight_decay: float) -> None:
    ours, theirs = parameters(), parameters()
    run(cls(ours, lr=LR, density=1.0, every=every, weight_decay=weight_decay), ours, 7)
    run(adamw(theirs, weight_decay=weight_decay), theirs, 7)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), name


def test_the_general_path_at_density_one_alpha_zero_is_adamw() -> None:
    # a clip too wide to matter keeps OnDARE and OnTIES from taking AdamW's own kernel
    for cls in (OnDARE, OnTIES):
        ours, theirs = parameters(), parameters()
        run(cls(ours, lr=LR, density=1.0, clip=1e3, weight_decay=0.1), ours, 7)
        run(adamw(theirs, weight_decay=0.1), theirs, 7)
        for (name, a), (_, b) in zip(ours, theirs, strict=True):
            assert (a - b).abs().max() <= 2 * 7 * ULP * b.abs().max(), name


def test_bf16_rounded_to_nearest_is_torch_adamw_bit_for_bit() -> None:
    ours, theirs = parameters(dtype=torch.bfloat16), parameters(dtype=torch.bfloat16)
    run(OnDARE(ours, lr=LR, density=1.0, rounding="nearest", moments="parameter"), ours, 5)
    run(adamw(theirs, weight_decay=0.0), theirs, 5)
    for (name, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), name


def test_ondare_density_one_adds_alpha_tau() -> None:
    alpha, tau = 0.25, deltas()
    ours, adam, before = parameters(), parameters(), values(parameters())
    run(OnDARE(ours, lr=LR, density=1.0, alpha=alpha, reference=tau), ours, 1)
    run(adamw(adam, weight_decay=0.0), adam, 1)
    for (name, a), (_, b) in zip(ours, adam, strict=True):
        expected = (1 - alpha) * (b - before[name]) + alpha * tau[name]
        assert (a - before[name] - expected).abs().max() <= 4 * ULP * before[name].abs().max(), name


CASES = [
    ("dare", OnDARE, {"rescale": "unbiased"}),
    ("dare", OnDARE, {"rescale": "none"}),
    ("dare", OnDARE, {"rescale": "l1"}),
    ("ties", OnTIES, {"elect": "weighted"}),
    ("ties", OnTIES, {"elect": "unweighted"}),
]


@pytest.mark.parametrize(("method", "cls", "extra"), CASES)
@pytest.mark.parametrize("density", [0.01, 0.3])
@pytest.mark.parametrize("every", [1, 3, 6])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_step_is_the_papers_equation(
    method: str, cls: type, extra: dict, density: float, every: int, weight_decay: float
) -> None:
    alpha, tau = 0.01, deltas()
    ours = parameters()
    options = {"density": density, "alpha": alpha, "every": every, "weight_decay": weight_decay, "seed": 5}
    # Adam's first step is η·g/(|g| + ε): at ε = 1e-8 every magnitude is η and the largest are a matter of rounding
    eps = 1e-3
    optimizer = cls(ours, lr=LR, eps=eps, reference=tau, **options, **extra)
    plain = PlainOnline(
        parameters(), tau, method=method, lr=LR, p=density, alpha=alpha, every=every, seed=5, wd=weight_decay, eps=eps,
        **extra,
    )  # fmt: skip
    for step in range(6):
        before = values(ours)
        run(optimizer, ours, 1, first=step)
        plain.step(gradients(step))
        for name, p in ours:
            assert (before[name] != p).any() or p.numel() * density < 200, f"{name} stood still at step {step}"
            # θ is rounded at every step, and Step-K magnifies what it reads back from θ by the rescaling
            tolerance = 8 * ULP * max(0.02, float(plain.theta[name].abs().max()))
            if extra.get("rescale", "none") != "none":
                tolerance /= density
            assert (p.double() - plain.theta[name]).abs().max() <= tolerance, (name, step)


@pytest.mark.parametrize("cls", [OnDARE, OnTIES])
@pytest.mark.parametrize("every", [2, 5])
def test_every_parameter_moves_on_every_step_of_step_k(cls: type, every: int) -> None:
    ours = parameters()
    optimizer = cls(ours, lr=LR, density=0.9, alpha=1e-3, every=every, reference=deltas())
    for step in range(7):
        before = values(ours)
        run(optimizer, ours, 1, first=step)
        for name, p in ours:
            if p.numel() > 1 or (step + 1) % every:  # a scalar may be dropped at a merge
                assert not torch.equal(before[name], p), (name, step)


def test_onlinear_is_interpolation_after_adamw() -> None:
    sft = {n: p.detach() + d for (n, p), d in zip(parameters(), deltas().values(), strict=True)}
    for every in (1, 3):
        ours = parameters()
        optimizer = OnLinear(ours, lr=LR, alpha=0.1, every=every, reference=sft)
        plain = PlainOnline(parameters(), sft, method="linear", lr=LR, p=1.0, alpha=0.1, every=every)
        for step in range(6):
            run(optimizer, ours, 1, first=step)
            plain.step(gradients(step))
        for name, p in ours:
            assert (p.double() - plain.theta[name]).abs().max() <= 1e-6, name


@pytest.mark.parametrize("density", [0.01, 0.5])
def test_childtuning_f_is_ondare_alpha_zero_unbiased(density: float) -> None:
    ours, adam, before = parameters(), parameters(), values(parameters())
    run(OnDARE(ours, lr=LR, density=density, rescale="unbiased", seed=3), ours, 1)
    run(adamw(adam, weight_decay=0.0), adam, 1)
    for (name, a), (_, b) in zip(ours, adam, strict=True):
        mask = random_kept(b.detach(), density, 3, 0, "0", name)
        expected = (b - before[name]) * mask / density  # gradients masked as Child-Tuning does, survivors × 1/p
        assert torch.equal(a != before[name], mask.bool()), name
        assert (a - before[name] - expected).abs().max() <= 4 * ULP * before[name].abs().max() / density


def test_the_expected_step_of_ondare_unbiased_is_adamw_mixed_with_tau() -> None:
    alpha, density, draws = 0.3, 0.2, 400
    adam, before, tau = parameters(), values(parameters()), deltas()
    run(adamw(adam, weight_decay=0.0), adam, 1)
    mean = {n: torch.zeros_like(p) for n, p in adam}
    for seed in range(draws):
        ours = parameters()[1:]
        optimizer = OnDARE(ours, lr=LR, density=density, alpha=alpha, reference=tau, seed=seed)
        run(optimizer, ours, 1)
        for n, p in ours:
            mean[n] += (p.detach() - before[n]) / draws
    name = "layer.weight"
    step = dict(adam)[name].detach() - before[name]
    expected = (1 - alpha) * step + alpha * tau[name]
    variance = (1 - density) / density * (((1 - alpha) * step) ** 2 + (alpha * tau[name]) ** 2) / draws
    z = (mean[name] - expected) / variance.sqrt()
    assert abs(float(z.mean())) < 5 / z.numel() ** 0.5
    assert 0.95 < float(z.square().mean()) < 1.05


@pytest.mark.parametrize("density", [0.02, 0.4, 1.0])
def test_step_k_with_k_equal_t_is_the_offline_recipe_entry_by_entry(density: float) -> None:
    steps, alpha, seed, sft = 5, 0.25, 11, values(parameters())
    tau, rlhf = deltas(), parameters()
    run(adamw(rlhf, weight_decay=0.0), rlhf, steps)
    for cls, method in ((OnDARE, "dare"), (OnTIES, "ties")):
        ours = parameters()
        options = {"density": density, "alpha": alpha, "every": steps, "seed": seed, "rounding": "nearest"}
        run(cls(ours, lr=LR, reference=tau, **options), ours, steps)
        for (name, a), (_, b) in zip(ours, rlhf, strict=True):
            delta = b.detach() - sft[name]  # RLHF relative_to SFT, weight 1 − α, model 0 of the recipe
            if method == "dare":
                offline = sft[name] + (
                    (1 - alpha) * (delta * random_kept(delta, density, seed, 0, "0", name) * (1 / density))
                    + alpha * (tau[name] * random_kept(delta, density, seed, 0, "1", name) * (1 / density))
                )
            else:
                d, t = (1 - alpha) * delta * largest(delta, density), alpha * tau[name] * largest(tau[name], density)
                elected = torch.where(d + t >= 0, 1.0, -1.0)
                offline = sft[name] + (torch.where(d * elected > 0, d, 0) + torch.where(t * elected > 0, t, 0))
            assert (a.detach() - offline).abs().max() <= ULP * offline.abs().max(), (method, name)


def test_online_is_step_k_with_k_one() -> None:
    # OnlineMerge takes Step-K's road (from an anchor) around torch's AdamW; OnDARE at K = 1 reads Adam's moments
    for method, cls in (("dare", OnDARE), ("ties", OnTIES)):
        for density in (0.02, 0.4):
            a, b = parameters(), parameters()
            options = {"density": density, "alpha": 0.01, "reference": deltas(), "rounding": "nearest"}
            run(cls(a, lr=LR, eps=1e-3, **options), a, 4)
            base = torch.optim.AdamW(b, lr=LR, eps=1e-3, weight_decay=0.0)
            run(OnlineMerge(base, method=method, **options), b, 4)
            for (name, x), (_, y) in zip(a, b, strict=True):
                # the wrapper sees Δθ as it was rounded into θ: an ulp of θ, times 1/p where survivors are rescaled
                near = (x - y).abs().detach() <= 8 * ULP * float(y.detach().abs().max()) / density
                # and such a rounding may swap the last of the largest entries
                assert (~near).sum() <= (0 if method == "dare" else 1e-3 * x.numel()), (method, name)


def test_the_masks_of_the_update_and_the_reference_are_the_recipes_models() -> None:
    ours, before = parameters(), values(parameters())
    for _, p in ours:
        p.grad = torch.zeros_like(p)
    OnDARE(ours, lr=LR, density=0.01, alpha=0.5, reference=deltas(), seed=9).step()
    for name, p in ours:
        if p.numel() > 1000:
            index = masks.kept_indices(noise.stream_key(9, 0, "1", name), 0.01, 0, p.numel())
            moved = torch.nonzero((p.detach() != before[name]).flatten()).flatten()
            assert torch.equal(moved, index), name


@pytest.mark.parametrize(("method", "cls"), [("dare", OnDARE), ("ties", OnTIES)])
@pytest.mark.parametrize("density", [0.01, 0.3])
@pytest.mark.parametrize("every", [1, 3])
def test_fp64_parameters_keep_what_fp32_cannot_hold(method: str, cls: type, density: float, every: int) -> None:
    tau, settings = deltas(), {"lr": 1e-7, "alpha": 1e-6, "seed": 5, "eps": 1e-3, "every": every, "rescale": "none"}
    ours = parameters(dtype=torch.float64)
    optimizer = cls(ours, density=density, reference=tau, **settings)
    plain = PlainOnline(parameters(dtype=torch.float64), tau, method=method, p=density, **settings)
    for step in range(6):
        run(optimizer, ours, 1, first=step)
        plain.step(gradients(step))
    for name, p in ours:
        # a thousandth of an ulp of fp32 at 0.05
        assert (p - plain.theta[name]).abs().max() <= 4e-12, name
