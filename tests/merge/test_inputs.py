"""Blocks of the inputs are read into reused buffers, and what is not finite is refused by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from mergetool.merge.inputs import Inputs
from mergetool.merge.plan import Source, Term
from tests.helpers import random_weights, write_checkpoint

NAME = "model.layers.0.mlp.up_proj.weight"


def inputs(tmp_path: Path, allow: bool) -> tuple[Inputs, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    one, two = random_weights(0), random_weights(1)
    two[NAME][3, 5] = math.nan
    layouts = [read_layout(write_checkpoint(tmp_path / n, w)) for n, w in (("one", one), ("two", two))]
    sources = [Source(name, layout) for name, layout in zip(("one", "two"), layouts, strict=True)]
    return Inputs(sources, [Reader(layout) for layout in layouts], "cpu", allow), one, two


def test_a_delta_is_model_minus_origin_in_a_buffer_that_is_reused(tmp_path: Path) -> None:
    read, one, two = inputs(tmp_path, True)
    name = "model.norm.weight"
    delta = read.delta_reader(name, Term(0, 1, 1.0, "0"))
    first = delta(0, 8)
    assert torch.equal(first, one[name][:8] - two[name][:8])
    assert delta(8, 16).data_ptr() == first.data_ptr()
    assert [read.step(row) % row for row in (1, 7, 1000)] == [0, 0, 0]


def test_a_nan_is_refused_with_its_model_or_counts_as_the_largest(tmp_path: Path) -> None:
    read, *_ = inputs(tmp_path, False)
    with pytest.raises(CheckpointError, match=f"two: tensor '{NAME}' holds NaN"):
        read.delta_reader(NAME, Term(1, 0, 1.0, "0"))(0, 500)
    read, *_ = inputs(tmp_path, True)
    block = read.delta_reader(NAME, Term(1, 0, 1.0, "0"))(0, 500)
    assert block.isinf().sum() == 1
    assert not block.isnan().any()
