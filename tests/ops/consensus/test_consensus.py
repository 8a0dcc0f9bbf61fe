"""A consensus is found by its file's name; weights are divided by their sum unless there is none."""

from __future__ import annotations

import itertools

import pytest
import torch

from mergetool.methods import METHODS
from mergetool.ops.consensus import Consensus, WholeInputs, alone, consensus, normalized


def test_every_row_names_a_file_and_each_is_made_once() -> None:
    for name in {method.consensus.name for method in METHODS.values()}:
        assert isinstance(consensus(name), Consensus)
        assert consensus(name) is consensus(name)
    with pytest.raises(ModuleNotFoundError):
        consensus("nothing")


def test_weights_sum_to_one_or_stay() -> None:
    assert normalized([1.0, 3.0]) == [0.25, 0.75]
    assert normalized([1.0, -1.0]) == [1.0, -1.0]
    assert [alone(w) for w in ([0.0, 1.0], [0.0, 0.5], [1.0, 1.0])] == [1, None, None]


@pytest.mark.parametrize("row", [1, 7, 1000])
def test_spans_cover_all_entries_in_whole_rows(row: int) -> None:
    numel = 3 * (1 << 18) // row * row
    inputs = WholeInputs([lambda a, b: torch.empty(b - a)], numel, [1.0], [1.0], {}, row)
    spans = list(inputs.spans())
    assert spans[0][0] == 0
    assert spans[-1][1] == numel
    assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
    assert all(start % row == 0 for start, _ in spans)
