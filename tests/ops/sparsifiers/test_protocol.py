"""Every sparsifier of the table: applied in parts it does what it does to the whole, and it counts what it keeps."""

from __future__ import annotations

import pytest
import torch

from mergetool.methods import METHODS
from mergetool.ops.blocks import reader
from mergetool.ops.noise import stream_key
from mergetool.ops.sparsifiers import WholeDelta, row_length, sparsifier

ROWS = {method.sparsifier.name: method for method in METHODS.values()}
SHAPE = (37, 1000)


def whole(name: str, x: torch.Tensor) -> WholeDelta:
    options = {option.name: option.default for option in ROWS[name].options}
    return WholeDelta(
        reader(x), SHAPE, stream_key(3, 0, "0", "w"), options | {"density": 0.3, "epsilon": 0.1, "rescale": "none"}
    )


@pytest.mark.parametrize("name", ROWS)
def test_in_parts_as_in_the_whole_and_counted(name: str) -> None:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)).flatten()
    by, delta = sparsifier(name), whole(name, x)
    statistic = by.statistic(delta)
    expected, step = x.clone(), 2 * row_length(SHAPE) if by.whole_rows else 777
    by.apply(expected, statistic, 0)
    parts, counts = [], []
    for start in range(0, x.numel(), step):
        part = x[start : start + step].clone()
        counts.append(by.apply(part, statistic, start))
        parts.append(part)
    assert torch.equal(torch.cat(parts), expected)
    assert torch.equal(expected[expected != 0], x[expected != 0])  # nothing is rescaled here
    kept = by.kept(delta)
    assert int(expected.count_nonzero()) == (sum(counts) if kept is None else kept)
    assert abs(int(expected.count_nonzero()) / x.numel() - (1.0 if name == "none" else 0.3)) < 0.01


def test_a_row_of_a_vector_is_all_of_it() -> None:
    assert [row_length(shape) for shape in ((), (7,), (3, 5), (2, 3, 4))] == [1, 7, 5, 12]
