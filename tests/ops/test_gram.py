"""Inner products in blocks are those of the whole tensors, however vectors lie in them."""

from __future__ import annotations

import pytest
import torch

from mergetool.ops import gram
from mergetool.ops.blocks import reader
from mergetool.ops.gram import Groups, gram_matrices

SHAPES = [(7,), (6, 10), (3, 5, 4), (1, 9), (2, 1, 3)]


def vectors(x: torch.Tensor, groups: Groups) -> torch.Tensor:
    """(vectors, entries of each)."""
    return x.double().reshape(groups.outer, groups.length, groups.inner).transpose(1, 2).reshape(groups.count, groups.length)


@pytest.mark.parametrize("block", [3, 16, 1 << 18])
@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s in SHAPES for a in (None, 0, -1, 1) if a is None or a < len(s)])
def test_the_products_are_those_of_the_vectors(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], axis: int | None, block: int
) -> None:
    monkeypatch.setattr(gram, "BLOCK", block)
    monkeypatch.setattr(gram.spans, "__defaults__", (block,))
    tensors = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    groups = Groups.whole(shape) if axis is None else Groups.along(shape, axis)
    found = gram_matrices([reader(tensor) for tensor in tensors], groups)
    stacked = torch.stack([vectors(tensor, groups) for tensor in tensors], dim=1)
    torch.testing.assert_close(found, stacked @ stacked.transpose(1, 2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_entry_is_of_the_vector_that_has_its_value(shape: tuple[int, ...]) -> None:
    for groups in (Groups.whole(shape), Groups.along(shape, 0), Groups.along(shape, -1), Groups(2, 3, 4)):
        numel = groups.outer * groups.length * groups.inner
        number = torch.arange(groups.count).view(groups.outer, 1, groups.inner)
        expected = number.expand(groups.outer, groups.length, groups.inner).reshape(-1)
        found = torch.cat([groups.of(a, min(a + 5, numel), torch.device("cpu")) for a in range(0, numel, 5)])
        assert torch.equal(found, expected)
