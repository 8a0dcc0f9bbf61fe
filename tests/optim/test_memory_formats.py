"""Where the entries of a parameter lie in memory does not matter: its indices do. Complex ones are refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from mergetool.errors import RecipeError
from mergetool.optim import OnDARE, OnLinear, OnlineMerge, OnTIES

SHAPES = {"conv": (8, 6, 5, 3), "video": (4, 3, 2, 5, 3), "turned": (30, 20), "bias": (8,)}
TAU = {name: torch.randn(s, generator=torch.Generator().manual_seed(5)) * 1e-3 for name, s in SHAPES.items()}
FORMATS = {"conv": torch.channels_last, "video": torch.channels_last_3d}


def sgd(params: Any, lr: float, **kw: Any) -> OnlineMerge:
    return OnlineMerge(torch.optim.SGD(params, lr=lr, momentum=0.9), **kw)


MAKES: list[tuple[Any, dict[str, Any]]] = [
    (OnDARE, {"density": 0.5}), (OnDARE, {"density": 0.02}), (OnDARE, {"density": 1.0, "alpha": 0.0}),
    (OnTIES, {"density": 0.2}), (OnTIES, {"density": 0.02, "rescale": "l1"}), (OnLinear, {}),
    (sgd, {"density": 0.5}), (sgd, {"method": "ties", "density": 0.02}), (sgd, {"method": "linear"}),
]  # fmt: skip


def parameters(dtype: torch.dtype, *, reformatted: bool) -> list[tuple[str, torch.nn.Parameter]]:
    rng = torch.Generator().manual_seed(0)
    values = {name: (torch.randn(s, generator=rng) * 0.02).to(dtype) for name, s in SHAPES.items()}
    if reformatted:
        values = {n: v.to(memory_format=FORMATS[n]) if n in FORMATS else v for n, v in values.items()}
        values["turned"] = values["turned"].t().contiguous().t()
        assert not any(values[n].is_contiguous() for n in ("conv", "video", "turned"))
    return [(name, torch.nn.Parameter(value)) for name, value in values.items()]


def run(optimizer: Any, params: list, first: int, last: int) -> None:
    for step in range(first, last):
        for name, p in params:
            g = torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(step)) * 1e-2
            p.grad = torch.empty_like(p).copy_(g)
        optimizer.step()


# torch's SGD itself rounds bf16 in another way for channels_last
CASES = [(make, how, dtype) for make, how in MAKES for dtype in (torch.float32, torch.bfloat16)[: 1 + (make is not sgd)]]


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize(("make", "how", "dtype"), CASES)
def test_another_memory_format_comes_to_the_same_weights_bit_for_bit(
    make: Any, how: dict[str, Any], dtype: torch.dtype, every: int
) -> None:
    settings = {"lr": 1e-2, "alpha": 0.1, "reference": TAU, "every": every} | how
    plain, ours = parameters(dtype, reformatted=False), parameters(dtype, reformatted=True)
    strides = {name: p.stride() for name, p in ours}
    right, optimizer = make(plain, **settings), make(ours, **settings)
    run(right, plain, 0, 4)
    run(optimizer, ours, 0, 4)
    # a state of one goes on in the other
    resumed = [(n, torch.nn.Parameter(p.detach().clone())) for n, p in ours]
    other = make(resumed, **settings)
    other.load_state_dict(copy.deepcopy(right.state_dict()))
    run(right, plain, 4, 7)
    run(optimizer, ours, 4, 7)
    run(other, resumed, 4, 7)
    for (name, p), (_, q), (_, r) in zip(plain, ours, resumed, strict=True):
        assert torch.equal(p, q), name
        assert torch.equal(p, r), name
        assert q.stride() == strides[name], name


def test_entries_that_share_memory_are_refused_by_name() -> None:
    p = torch.nn.Parameter(torch.zeros(1).expand(4, 3))
    p.grad = torch.ones(4, 3)
    with pytest.raises(RecipeError, match="entries of parameter w share memory"):
        OnDARE([("w", p)], density=0.5).step()


@pytest.mark.parametrize("make", [OnDARE, OnTIES, OnLinear, sgd])
def test_complex_parameters_are_refused_by_name_and_their_real_view_is_trained(make: Any) -> None:
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64))
    with pytest.raises(RecipeError, match=r"parameter w has complex entries.*view_as_real"):
        make([("w", p)], lr=1e-2)
    frozen = torch.nn.Parameter(torch.ones(3, dtype=torch.complex64), requires_grad=False)
    real = torch.nn.Parameter(torch.view_as_real(p.detach()))
    optimizer = make([("w", real), ("frozen", frozen)], lr=1e-2)
    real.grad = torch.ones_like(real)
    optimizer.step()


@pytest.mark.parametrize(("make", "how"), MAKES[:6])
def test_a_parameter_that_is_resized_is_refused_before_a_kernel_reads_beyond_its_end(make: Any, how: dict[str, Any]) -> None:
    params = parameters(torch.float32, reformatted=False)
    optimizer = make(params, lr=1e-2, **how)
    run(optimizer, params, 0, 1)
    for other in (torch.zeros(16, 6, 5, 3), torch.zeros(4, 6, 5, 3), torch.zeros(8, 6, 5, 3, dtype=torch.float64)):
        conv = params[0][1]
        conv.grad = None
        conv.data = other
        conv.grad = torch.zeros_like(conv)
        with pytest.raises(RecipeError, match="does not fit parameter conv"):
            optimizer.step()
