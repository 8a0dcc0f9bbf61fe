""".bin files: tied weights count once, whatever they are called; parameters are tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.open import open_reader
from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_tensors, plan_merge


def pickle(directory: Path, state: dict[str, Any]) -> Path:
    torch.save(state, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    return directory


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "T5ForConditionalGeneration", "BertForMaskedLM"])
def test_a_pickled_state_dict_has_the_tensors_that_safetensors_would_have(saved, kind: str) -> None:
    import transformers

    directory = saved(kind, "m")
    names = set(load_file(directory / "model.safetensors"))
    model = getattr(transformers, kind).from_pretrained(directory)
    assert set(model.state_dict()) > names
    assert set(read_layout(pickle(directory, model.state_dict())).tensors) == names


def test_a_pickled_head_that_differs_stays(saved) -> None:
    directory = saved("LlamaForCausalLM", "m")
    state = load_file(directory / "model.safetensors") | {"lm_head.weight": torch.ones(96, 32)}
    assert "lm_head.weight" in read_layout(pickle(directory, state)).tensors


def test_a_file_of_torchs_old_format_is_read_and_runs_no_code(saved) -> None:
    directory = saved("LlamaForCausalLM", "m")
    state, file = load_file(directory / "model.safetensors"), directory / "pytorch_model.bin"
    torch.save(state, file, _use_new_zipfile_serialization=False)
    (directory / "model.safetensors").unlink()
    with open_reader(read_layout(directory)) as reader:
        assert all(torch.equal(reader.tensor(name), tensor) for name, tensor in state.items())
    before = read_layout(directory).headers
    torch.save({**state, "w": torch.nn.Linear(2, 2)}, file, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="more than tensors"):
        read_layout(directory)
    torch.save(dict(reversed(state.items())), file, _use_new_zipfile_serialization=False)
    assert read_layout(directory).headers != before


def test_a_file_of_a_training_says_where_its_weights_lie(saved) -> None:
    directory = saved("LlamaForCausalLM", "m")
    pickle(directory, {"epoch": 3, "state_dict": load_file(directory / "model.safetensors")})
    with pytest.raises(CheckpointError, match="lie under 'state_dict'"):
        read_layout(directory)


def test_pickled_parameters_merge_as_tensors(saved) -> None:
    base, directory = saved("LlamaForCausalLM", "base", 1), saved("LlamaForCausalLM", "m", 2)
    state = load_file(directory / "model.safetensors")
    pickle(directory, {name: torch.nn.Parameter(tensor) for name, tensor in state.items()})
    models = [{"model": str(directory), "parameters": {"weight": 1.0}}]
    recipe = MergeRecipe.model_validate({"merge_method": "task_arithmetic", "base_model": str(base), "models": models})
    for name, tensor in merge_tensors(plan_merge(recipe)):
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-6)
