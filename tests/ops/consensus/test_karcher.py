"""At the mean the pulls of all vectors along the sphere cancel out."""

from __future__ import annotations

import math

import numpy as np
import torch

from mergetool.ops.consensus.karcher import mean_direction
from tests.helpers import combined

OPTIONS = {"max_iter": 50, "tol": 1e-7}


def test_the_pulls_cancel_out_and_the_length_is_the_mean_length() -> None:
    x = [torch.randn(40, generator=torch.Generator().manual_seed(i)) * (i + 1) for i in range(4)]
    found = combined("karcher", x, OPTIONS).double()
    lengths = [t.double().norm() for t in x]
    assert math.isclose(float(found.norm()), float(sum(lengths) / 4), rel_tol=1e-6)
    mean, pull = found / found.norm(), torch.zeros(40, dtype=torch.float64)
    for t, length in zip(x, lengths, strict=True):
        unit = t.double() / length
        angle = torch.acos(unit @ mean)
        pull += angle / angle.sin() * (unit - (unit @ mean) * mean)
    assert float(pull.norm()) < 1e-5


def test_of_two_vectors_it_halves_the_angle() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(2.0), math.sin(2.0)])
    torch.testing.assert_close(combined("karcher", [a, b], OPTIONS), torch.tensor([math.cos(1.0), math.sin(1.0)]))


def test_zeros_pull_nowhere_but_shorten_and_zeros_alone_are_zero() -> None:
    a = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(combined("karcher", [a, torch.zeros(2)], OPTIONS), a / 2)
    assert not combined("karcher", [torch.zeros(2)] * 2, OPTIONS).any()


def test_vectors_that_cancel_out_leave_the_first() -> None:
    assert mean_direction(np.array([[1.0, -1.0], [-1.0, 1.0]]), 10, 1e-5).tolist() == [1.0, 0.0]
