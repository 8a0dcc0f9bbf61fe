"""A step that torch.compile has made one pass of is the step that is made block by block."""

from __future__ import annotations

import pytest
import torch

from mergetool.optim import OnDARE, OnTIES, kernels
from mergetool.optim.kernels import SPAN
from tests.optim.plain import PlainOnline, random_kept
from tests.optim.scenes import deltas, gradients, parameters, run, values

pytestmark = pytest.mark.slow
ULP = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-7}
DENSE = [
    (OnDARE, {"density": 0.3}),
    (OnDARE, {"density": 0.5, "weight_decay": 0.1, "rescale": "none"}),
    (OnDARE, {"density": 0.3, "clip": 1e-4, "tau_mask": "fixed"}),
    (OnDARE, {"density": 1.0}),
    (OnDARE, {"density": 0.3, "rounding": "nearest", "weight_decay": 0.1}),
    (OnDARE, {"density": 0.5, "alpha": 0.0}),
    (OnDARE, {"density": 0.3, "moments": "parameter"}),
    (OnDARE, {"density": 0.3, "every": 3, "weight_decay": 0.1}),
    (OnTIES, {"density": 0.3, "every": 2}),
    (OnTIES, {"density": 0.3, "weight_decay": 0.1}),
    (OnTIES, {"density": 1.0, "elect": "unweighted", "clip": 1e-4}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("cls", "settings"), DENSE)
def test_compiled_and_block_by_block_agree(cls: type, settings: dict, dtype: torch.dtype) -> None:
    made = {}
    for choice in (True, False):
        made[choice] = parameters(dtype=dtype)
        # at Adam's first step every |Δθ| is η up to what ε takes, so the largest are told apart by ε alone
        options = {"alpha": 1e-3, "reference": deltas(), "seed": 6, "eps": 1e-3} | settings
        optimizer = cls(made[choice], lr=1e-4, compile=choice, **options)
        run(optimizer, made[choice], 4)
    for (name, a), (_, b) in zip(made[True], made[False], strict=True):
        apart = (a.detach() - b.detach()).abs().float()
        # Δθ agrees to a rounding, so a sum may fall on the other side of its uniform number now and then
        assert apart.max() <= 4 * ULP[dtype] * b.detach().abs().max(), name
        assert (apart > 0).float().mean() < (0.2 if dtype == torch.float32 else 0.02), name


def test_a_compiled_step_moves_the_entries_of_the_masks_and_no_others() -> None:
    ours, before = parameters(), values(parameters())
    run(OnDARE(ours, lr=1e-3, density=0.3, seed=3, compile=True), ours, 1)
    for name, p in ours:
        if p.numel() > 1:
            mask = random_kept(p.detach(), 0.3, 3, 0, "0", name).bool()
            assert torch.equal(p.detach() != before[name], mask), name


@pytest.mark.parametrize(
    ("method", "cls", "extra"),
    [
        ("dare", OnDARE, {"rescale": "unbiased"}),
        ("dare", OnDARE, {"rescale": "none"}),
        ("ties", OnTIES, {"elect": "weighted"}),
        ("ties", OnTIES, {"elect": "unweighted"}),
    ],
)
def test_every_compiled_step_is_the_papers_equation(method: str, cls: type, extra: dict) -> None:
    tau, ours = deltas(), parameters()
    settings = {"lr": 1e-3, "eps": 1e-3, "alpha": 0.01, "seed": 5, **extra}
    optimizer = cls(ours, density=0.3, weight_decay=0.1, reference=tau, compile=True, **settings)
    plain = PlainOnline(parameters(), tau, method=method, p=0.3, wd=0.1, **settings)
    for step in range(6):
        run(optimizer, ours, 1, first=step)
        plain.step(gradients(step))
        for name, p in ours:
            tolerance = 8 * 2.0**-23 * max(0.02, float(plain.theta[name].abs().max())) / 0.3
            assert (p.double() - plain.theta[name]).abs().max() <= tolerance, (name, step)


def test_a_large_tensors_threshold_is_found_in_the_pass_over_the_moments_and_keeps_exactly_k() -> None:
    n, density = SPAN + 1003, 0.3
    rng = torch.Generator().manual_seed(0)
    start = torch.randn(n, generator=rng) * 0.02 + 1.0  # an update of 0.5 moves every entry that is kept
    p = torch.nn.Parameter(start.clone())
    optimizer = OnTIES([("w", p)], lr=0.5, eps=1e-6, density=density, compile=True)
    for step in range(3):
        p.data.copy_(start)
        p.grad = torch.randn(n, generator=torch.Generator().manual_seed(step)) * torch.rand(n, generator=rng)
        optimizer.step()
        moved = torch.nonzero(p.detach() != start).flatten()
        state = optimizer.state[p]
        m, v = state["exp_avg"].double(), state["exp_avg_sq"].double()
        size = (m / (v.sqrt() + 1e-6 * (1 - 0.999 ** (step + 1)) ** 0.5)).abs()
        assert moved.numel() == int(density * n), step
        dropped = torch.ones(n, dtype=torch.bool).scatter_(0, moved, False)
        assert size[moved].min() >= size[dropped].max() * (1 - 1e-6), step  # at the first step all are of one size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compiled_sweep_finds_the_same_largest_entries(dtype: torch.dtype) -> None:
    n = SPAN + 1003
    rng = torch.Generator().manual_seed(0)
    tau, start = torch.randn(n, generator=rng) * 1e-3, torch.randn(n, generator=rng) * 0.02
    made = {}
    for choice in (True, False):
        p = torch.nn.Parameter(start.to(dtype).clone())
        optimizer = OnTIES([("w", p)], lr=1e-4, eps=1e-6, density=5e-4, alpha=0.5, reference={"w": tau}, compile=choice)
        for step in range(3):
            p.grad = (torch.randn(n, generator=torch.Generator().manual_seed(step)) * 1e-3).to(dtype)
            optimizer.step()
        made[choice] = p.detach()
    moved = {choice: p != start.to(dtype) for choice, p in made.items()}
    assert moved[True].sum() > 2 * int(5e-4 * n)
    # an update at the very threshold may be the last one kept or the first one dropped
    assert (moved[True] != moved[False]).sum() <= 6
    assert ((made[True] - made[False]).abs().float() > 4 * ULP[dtype] * 0.1).sum() <= 6


def test_a_sparse_step_with_compiled_moments_is_the_plain_one() -> None:
    n = 1 << 20
    made = {}
    for choice in (True, False):
        p = torch.nn.Parameter(torch.linspace(-0.1, 0.1, n))
        optimizer = OnDARE([("w", p)], lr=1e-3, density=0.01, compile=choice)
        for step in range(3):
            p.grad = torch.sin(torch.arange(n) * 0.1 + step)
            optimizer.step()
        made[choice] = p.detach()
    # survivors are 100 times as large, so an ulp of Δθ is one of θ
    assert (made[True] - made[False]).abs().max() <= 4 * 2.0**-23 * made[False].abs().max()
    assert (made[True] != torch.linspace(-0.1, 0.1, n)).sum() > 2500


@pytest.mark.parametrize("cls", [OnDARE, OnTIES])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_runs_resume_bit_for_bit(cls: type, dtype: torch.dtype) -> None:
    settings = {"lr": 1e-3, "density": 0.3, "alpha": 0.01, "reference": deltas(), "compile": True}
    whole, half, rest = (parameters(dtype=dtype) for _ in range(3))
    run(cls(whole, **settings), whole, 6)
    first = cls(half, **settings)
    run(first, half, 3)
    for (_, p), (_, q) in zip(rest, half, strict=True):
        p.data.copy_(q)
    second = cls(rest, **settings)
    second.load_state_dict(first.state_dict())
    run(second, rest, 3, first=3)
    for (name, a), (_, b) in zip(whole, rest, strict=True):
        assert torch.equal(a, b), name


def test_bf16_between_merges_is_compiled_too() -> None:
    made = {}
    for choice in (True, False):
        made[choice] = parameters(dtype=torch.bfloat16)
        run(OnDARE(made[choice], lr=1e-4, density=0.3, every=3, weight_decay=0.1, compile=choice), made[choice], 2)
    for (name, a), (_, b) in zip(made[True], made[False], strict=True):
        assert (a != b).float().mean() < 0.02, name
        assert (a - b).abs().max() <= 2.0**-7 * b.abs().max(), name


def test_a_learning_rate_that_changes_compiles_nothing_anew() -> None:
    ours = parameters()
    optimizer = OnDARE(ours, lr=1e-3, density=0.3, compile=True)
    run(optimizer, ours, 2)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for step in range(3):
            optimizer.param_groups[0]["lr"] = 1e-3 / (step + 2)
            run(optimizer, ours, 1, first=2 + step)


def test_where_a_tensor_lies_in_another_one_compiles_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SPAN", 1 << 12)  # three parts of each tensor
    n = 3 * (1 << 12) - 5
    buffer, tau = torch.randn(3 * n + 7) * 1e-2, torch.randn(2 * n + 1) * 1e-3

    def step(place: int) -> None:
        p = torch.nn.Parameter(torch.zeros(2 * n)[place : place + n])
        optimizer = OnDARE([("w", p)], lr=1e-3, density=0.3, alpha=0.1, reference={"w": tau[place : place + n]}, compile=True)
        p.grad = buffer[2 * place : 2 * place + n]
        optimizer.step()
        assert (p != 0).float().mean() > 0.3

    step(0)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for place in (1, 16, 301):
            step(place)


@pytest.mark.parametrize("n", [5000, 300_000])
@pytest.mark.parametrize("choice", [False, True])
@pytest.mark.parametrize("density", [0.01, 0.3])
@pytest.mark.parametrize("cls", [OnDARE, OnTIES])
def test_nan_gradients_end_and_are_seen_in_the_weights(cls: type, density: float, choice: bool, n: int) -> None:
    # AdamW's weights become NaN; standing still in silence would be worse, and a search among NaN must end
    for share in (0.001, 0.9):
        p = torch.nn.Parameter(torch.zeros(n))
        optimizer = cls([("w", p)], lr=1e-3, density=density, alpha=0.1, reference={"w": torch.ones(n)}, compile=choice)
        p.grad = torch.randn(n, generator=torch.Generator().manual_seed(0))
        p.grad[: max(1, int(share * n))] = float("nan")
        optimizer.step()
        assert p.isnan().any() or (cls is OnDARE and share < 0.1)  # a few may fall to the mask
