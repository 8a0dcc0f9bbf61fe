"""The mean of models: exact where it can be."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops.blocks import reader
from mergetool.ops.consensus import WholeInputs, alone, normalized
from mergetool.ops.consensus.linear import CONSENSUS, blend, lerp


def combined(models: list[torch.Tensor], weights: list[float], normalize: bool) -> torch.Tensor:
    inputs = WholeInputs([reader(m) for m in models], models[0].numel(), weights, [1.0] * len(models), {"normalize": normalize})
    return CONSENSUS.combine(models, CONSENSUS.statistic(inputs), lambda name: torch.empty_like(models[0]))


@given(weights=st.lists(st.floats(-2, 2), min_size=2, max_size=4), normalize=st.booleans())
def test_it_is_the_weighted_mean_in_double_precision(weights: list[float], normalize: bool) -> None:
    models = [torch.randn(50, generator=torch.Generator().manual_seed(i)) for i in range(len(weights))]
    used = normalized(weights) if normalize and alone(weights) is None else weights
    expected = sum(w * m.double() for w, m in zip(used, models, strict=True))
    scale = 1e-6 * (1 + sum(map(abs, used)))
    torch.testing.assert_close(combined(models, weights, normalize).double(), expected, rtol=1e-5, atol=scale)


def test_a_model_of_weight_one_alone_is_that_model_itself() -> None:
    models = [torch.tensor([0.0, -0.0, 1.5]), torch.tensor([9.0, 9.0, 9.0])]
    assert combined(models, [1.0, 0.0], True) is models[0]
    assert alone([0.0, 1.0, 0.0]) == 1
    assert alone([0.5, 0.5]) is None


def test_equal_models_blend_to_themselves_sign_of_zero_included() -> None:
    x = torch.tensor([-0.0, 0.0, 3.25])
    mixed = blend([x, x.clone()], [0.3, 0.7], torch.empty(3))
    assert torch.equal(mixed.view(torch.int32), x.view(torch.int32))


def test_an_interpolation_ends_at_its_ends() -> None:
    a, b = torch.randn(100), torch.randn(100)
    assert torch.equal(lerp(a, b, 0.0), a)
    assert torch.equal(lerp(a, b, 1.0), b)
