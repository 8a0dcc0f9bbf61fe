"""A sparsifier is found by its file's name, and knows a delta by its shape before it is read."""

from __future__ import annotations

import pytest
import torch

from mergetool.methods import METHODS
from mergetool.ops.blocks import reader
from mergetool.ops.sparsifiers import Sparsifier, WholeDelta, row_length, sparsifier


def test_every_row_names_a_file_and_each_is_made_once() -> None:
    for name in {method.sparsifier.name for method in METHODS.values()}:
        assert isinstance(sparsifier(name), Sparsifier)
        assert sparsifier(name) is sparsifier(name)
    with pytest.raises(ModuleNotFoundError):
        sparsifier("nothing")


def test_a_delta_knows_its_entries_and_rows() -> None:
    delta = WholeDelta(reader(torch.zeros(2, 3, 4)), (2, 3, 4), 0, {"density": 0.5})
    assert (delta.numel, delta.row, delta.density) == (24, 12, 0.5)
    assert [row_length(shape) for shape in ((5,), (5, 7), (2, 3, 4))] == [5, 7, 12]
