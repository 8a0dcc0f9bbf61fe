"""Learning the ratios: better than uniform where they were learned, held by the penalty, the same by seed."""

from __future__ import annotations

import pytest

from tests.ama.small import made


def test_learned_ratios_make_the_chosen_answers_more_likely_than_uniform_averaging_at_the_same_mean(pair) -> None:
    (found,) = made(pair)
    assert found.learned.nll < found.learned.uniform_nll - 0.01
    assert sum(found.learned.shares) / 3 == pytest.approx(0.4)
    assert found.learned.losses[-1] < found.learned.losses[0]


def test_a_heavy_penalty_keeps_the_ratios_at_the_mean(pair) -> None:
    free, held = (made(pair, penalty=strength)[0].learned.shares for strength in (0.0, 1e3))
    assert max(abs(share - 0.4) for share in free) > 0.1
    assert max(abs(share - 0.4) for share in held) < 0.1


def test_the_same_seed_gives_the_same_ratios_and_checkpointed_activations_too(pair) -> None:
    training = {"steps": 3, "batch_size": 5}
    first, again, thrifty = (
        made(pair, training={**training, **more})[0].learned.shares for more in ({}, {}, {"gradient_checkpointing": True})
    )
    assert first == again
    assert thrifty == pytest.approx(first, rel=1e-6)
    assert made(pair, training={**training, "seed": 1})[0].learned.shares != first
