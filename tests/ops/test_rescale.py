"""What survivors are multiplied by restores what the rule promises."""

from __future__ import annotations

import pytest
import torch

from mergetool.methods import METHODS, SETTINGS
from mergetool.ops.blocks import reader
from mergetool.ops.rescale import RESCALES, l1_norm, rescale_factor, share_left
from mergetool.ops.sparsifiers.random import drop
from mergetool.options import Word


def test_l1_rescaling_restores_the_l1_norm() -> None:
    x = torch.randn(100_000)
    before = l1_norm(reader(x), x.numel())
    y = x.clone()
    drop(y, 5, 0.3)
    after = l1_norm(reader(y), y.numel())
    y *= rescale_factor("l1", 0.3, before, after)
    assert y.abs().sum().item() == pytest.approx(before, rel=1e-5)


def test_norms_of_nothing_leave_the_scale_alone() -> None:
    assert rescale_factor("l1", 0.5, 0.0, 0.0) == 1.0
    assert rescale_factor("unbiased", 0.0) == 1.0


def test_only_a_rule_without_a_factor_leaves_less_than_the_delta() -> None:
    assert {rule: share_left(rule, 0.25) for rule in RESCALES} == {"unbiased": 1.0, "l1": 1.0, "none": 0.25}


def test_every_rule_that_may_be_set_is_one() -> None:
    options = [option for method in METHODS.values() for option in method.options] + list(SETTINGS)
    words = [option.words for option in options if isinstance(option, Word) and option.name == "rescale"]
    assert words
    assert all(set(rules) == set(RESCALES) for rules in words)
