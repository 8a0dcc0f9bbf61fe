"""Weights that are one tensor in memory and several on disk: the runs are those that transformers lays together."""

from __future__ import annotations

import pytest
import torch

from mergetool.architecture.fused import Fused, assembled
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.weights import InFiles
from mergetool.errors import CheckpointError


@pytest.mark.parametrize("kind", ["MixtralForCausalLM", "OlmoeForCausalLM", "GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_any_part_of_any_weight_is_what_transformers_loads(saved, kind: str) -> None:
    import transformers

    directory = saved(kind, "m")
    weights = InFiles(read_layout(directory))
    for name, parameter in getattr(transformers, kind).from_pretrained(directory).named_parameters():
        found, flat = weights.find(name), parameter.detach().flatten()
        assert found is not None
        assert weights.shape(found) == tuple(parameter.shape)
        n = flat.numel()
        for start, stop in ((0, n), (n // 3, n // 2 + 1), (n - 1, n)):
            assert torch.equal(weights.part(found, start, stop), flat[start:stop])
        index = torch.randperm(n)[:50]
        assert torch.equal(weights.at(found, index), flat[index])


class _Interleave:
    """Stands for an operation of transformers that moves entries within a tensor."""


class _Converter:
    def __init__(self, operation: object) -> None:
        self.operations, self.source_patterns, self.target_patterns = [operation], ["a"], ["b"]


def test_an_operation_that_moves_entries_is_refused_by_name() -> None:
    fused = Fused(_Converter(_Interleave()), {"a": [("w", (4, 2))]}, 0)
    with pytest.raises(CheckpointError, match="'live' is computed from 'w' by transformers' _Interleave"):
        assembled("live", (4, 2), fused)
