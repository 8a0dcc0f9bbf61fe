"""Weights that are one tensor in memory and several on disk: the runs are those that transformers lays together."""

from __future__ import annotations

import pytest

from mergetool.architecture.fused import Fused, assembled
from mergetool.errors import CheckpointError


class _Interleave:
    """Stands for an operation of transformers that moves entries within a tensor."""


class _Converter:
    def __init__(self, operation: object) -> None:
        self.operations, self.source_patterns, self.target_patterns = [operation], ["a"], ["b"]


class MergeModulelist:
    """Named as transformers' own: the name decides how it is followed."""

    dim = 0


class Concatenate:
    """As above."""

    dim = 1


def test_experts_are_stacked_and_their_halves_laid_side_by_side() -> None:
    converter = _Converter(MergeModulelist())
    converter.operations.append(Concatenate())
    converter.source_patterns = ["gate", "up"]
    sources = {"gate": [("g0", (1, 2)), ("g1", (1, 2))], "up": [("u0", (1, 2)), ("u1", (1, 2))]}
    runs = assembled("live", (2, 2, 2), Fused(converter, sources, 0))
    assert [(run.at, run.name, run.start, run.numel) for run in runs] == [
        (0, "g0", 0, 2), (2, "u0", 0, 2), (4, "g1", 0, 2), (6, "u1", 0, 2)
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match="'live' has shape"):
        assembled("live", (3, 2, 2), Fused(converter, sources, 0))


def test_an_operation_that_moves_entries_is_refused_by_name() -> None:
    fused = Fused(_Converter(_Interleave()), {"a": [("w", (4, 2))]}, 0)
    with pytest.raises(CheckpointError, match="'live' is computed from 'w' by transformers' _Interleave"):
        assembled("live", (4, 2), fused)
