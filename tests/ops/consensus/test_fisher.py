"""Fisher merging is the mean of the models, each entry weighted by its information; without any it is the weighted mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mergetool.ops.blocks import reader
from mergetool.ops.consensus import WholeInputs
from mergetool.ops.consensus.fisher import CONSENSUS, Information

SHAPE = (7, 30)


def drawn(count: int, seed: int = 0) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=rng) for _ in range(count)]


def squares(count: int) -> list[torch.Tensor]:
    return [one.square() * 10.0**-i for i, one in enumerate(drawn(count, seed=1))]


def merged(
    models: list[torch.Tensor],
    information: list[torch.Tensor] | None,
    weights: list[float],
    floor: float = 1e-6,
    step: int = 41,
    **more: bool,
) -> torch.Tensor:
    known = None
    if information is not None:
        known = Information(tuple(map(reader, information)), tuple(float(one.mean()) for one in information))
    numel, ones = models[0].numel(), [1.0] * len(models)
    inputs = WholeInputs(
        [*map(reader, models)], numel, weights, ones, {"floor": floor, "normalize_fisher": False, **more}, 1, SHAPE, known=known
    )
    statistic, parts, flat = CONSENSUS.statistic(inputs), [], [one.reshape(-1) for one in models]
    for start in range(0, models[0].numel(), step):
        stop = min(start + step, models[0].numel())
        out = torch.full((stop - start,), torch.nan)
        pieces = [one[start:stop].clone() for one in flat]
        parts.append(CONSENSUS.combine(pieces, CONSENSUS.at(statistic, start, stop), lambda what, out=out: out).clone())
        assert all(torch.equal(piece, one[start:stop]) for piece, one in zip(pieces, flat, strict=True)), "models stay"
    return torch.cat(parts).view(SHAPE)


@pytest.mark.parametrize("count", [2, 3])
def test_it_is_the_formula_in_plain_numpy_however_it_is_cut(count: int) -> None:
    models, information, weights, floor = drawn(count), squares(count), [0.4, 1.6, 0.7][:count], 1e-3
    w, theta, f = (
        np.array(weights)[:, None, None],
        *(np.stack([x.double().numpy() for x in some]) for some in (models, information)),
    )
    f = f + floor * f.mean((1, 2)).max()
    expected = (w * f * theta).sum(0) / (w * f).sum(0)
    found = merged(models, information, weights, floor)
    assert np.abs(found.numpy() - expected).max() < 1e-6
    assert torch.equal(found, merged(models, information, weights, floor, step=210))


def test_equal_information_is_the_weighted_mean_and_its_unit_does_not_matter() -> None:
    models, same, weights = drawn(3), squares(1) * 3, [0.5, 1.0, 2.5]
    mean = sum(w / 4 * one.double() for w, one in zip(weights, models, strict=True))
    assert torch.allclose(merged(models, same, weights).double(), mean, rtol=0, atol=2e-7)
    apart = squares(3)
    assert torch.equal(merged(models, [one * 2.0**-40 for one in apart], weights), merged(models, apart, weights))


def test_an_entry_that_one_model_alone_knows_of_is_that_models() -> None:
    models, (f, _) = drawn(2), squares(2)
    nothing = torch.zeros(SHAPE)
    f = f + 0.01
    assert torch.allclose(merged(models, [f, nothing], [1.0, 1.0], floor=1e-9), models[0], rtol=0, atol=1e-6)
    assert torch.allclose(merged(models, [nothing, f], [1.0, 1.0], floor=1e-9), models[1], rtol=0, atol=1e-6)
    half = f.clone()
    half[:3] = 0  # there nobody knows
    found = merged(models, [half, nothing], [1.0, 3.0], floor=1e-9)
    assert torch.allclose(found[:3], 0.25 * models[0][:3] + 0.75 * models[1][:3], rtol=0, atol=1e-6)
    assert torch.allclose(found[3:], models[0][3:], rtol=0, atol=1e-6)


def test_models_that_are_equal_give_the_model_back_bit_for_bit_and_no_information_gives_the_mean() -> None:
    (model,), information = drawn(1), squares(3)
    model[0, :4] = torch.tensor([0.0, -0.0, 1e-40, -1e30])
    for known in (information, None):
        found = merged([model] * 3, known, [0.2, 0.5, 0.3])
        assert torch.equal(found, model)
        assert torch.equal(found.signbit(), model.signbit())
    a, b = drawn(2)
    assert torch.allclose(merged([a, b], None, [1.0, 3.0]), 0.25 * a + 0.75 * b, rtol=0, atol=2e-7)


def test_normalized_a_model_counts_no_more_for_larger_gradients() -> None:
    models, (f, g), weights = drawn(2), squares(2), [1.0, 3.0]
    found = merged(models, [f, g * 2.0**10], weights, normalize_fisher=True)
    assert torch.equal(found, merged(models, [f, g], weights, normalize_fisher=True))
    assert not torch.equal(merged(models, [f, g * 2.0**10], weights), merged(models, [f, g], weights))
    by_hand = merged(models, [f / f.mean(), g / g.mean()], weights)
    assert torch.allclose(found, by_hand, rtol=0, atol=1e-5)
    never = torch.zeros(SHAPE)
    assert torch.allclose(merged(models, [f + 0.01, never], weights, 1e-9, normalize_fisher=True), models[0], rtol=0, atol=1e-6)
