"""Weights by their live names, whatever the file calls them: any part is what transformers loads."""

from __future__ import annotations

import pytest
import torch

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.weights import InFiles


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
