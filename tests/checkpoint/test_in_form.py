"""One checkpoint in another's form: experts apart or together, and names that torch's wrappers have changed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.checkpoint.in_form import InFormReader, in_form_of
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.open import open_reader
from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.architecture.small import SIZES


def both_forms(kind: str, folder: Path, seed: int) -> dict[bool, Path]:
    """The same weights with an expert a tensor (True) and as one tensor (False)."""
    import transformers

    torch.manual_seed(seed)
    cls = getattr(transformers, kind)
    model = cls(cls.config_class(**SIZES[kind]))
    for apart in (True, False):
        model.save_pretrained(folder / f"{seed}-{apart}", save_original_format=apart)
    return {apart: folder / f"{seed}-{apart}" for apart in (True, False)}


@pytest.mark.parametrize("kind", ["MixtralForCausalLM", "OlmoeForCausalLM"])
def test_each_form_is_read_as_the_other_and_the_result_has_the_bases(kind: str, tmp_path: Path) -> None:
    one, other = both_forms(kind, tmp_path, 1), both_forms(kind, tmp_path, 2)
    for apart in (True, False):
        layout = in_form_of(read_layout(one[not apart]), read_layout(one[apart]))
        want = load_file(one[apart] / "model.safetensors")
        reader = open_reader(layout)
        assert isinstance(reader, InFormReader)
        assert layout.in_form is not None
        assert {name for name in want if ".experts." in name} == layout.in_form.runs.keys()
        for name in layout.in_form.runs:
            value = want[name]
            assert torch.equal(reader.tensor(name), value), name
            assert torch.equal(reader.block(name, 7, value.numel() - 5), value.flatten()[7 : value.numel() - 5]), name
        models = [{"model": str(d), "parameters": {"weight": 0.5}} for d in (one[apart], other[not apart])]
        plan = plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models}))
        merge_to_directory(plan, tmp_path / f"out-{apart}", threads=2)
        merged, second = (load_file(d / "model.safetensors") for d in (tmp_path / f"out-{apart}", other[apart]))
        assert merged.keys() == want.keys()
        for name, value in want.items():
            torch.testing.assert_close(merged[name], (value + second[name]) / 2)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module.", "_fsdp_wrapped_module."])
def test_a_wrapper_in_the_names_is_taken_off(saved, tmp_path: Path, prefix: str) -> None:
    plain, wrapped = saved("LlamaForCausalLM", "a"), saved("LlamaForCausalLM", "b")
    tensors = load_file(wrapped / "model.safetensors")
    save_file({prefix + name: t for name, t in tensors.items()}, wrapped / "model.safetensors")
    layout = read_layout(wrapped)
    assert layout.tensors.keys() == read_layout(plain).tensors.keys()
    reader = open_reader(layout)
    assert all(torch.equal(reader.tensor(name), value) for name, value in tensors.items())


def test_a_wrapper_inside_of_a_model_is_taken_off_and_a_name_that_is_there_twice_is_an_error(saved) -> None:
    directory = saved("LlamaForCausalLM", "a")
    tensors = load_file(directory / "model.safetensors")
    inner = {n.replace("layers.0.", "layers.0._checkpoint_wrapped_module."): t for n, t in tensors.items()}
    save_file(inner, directory / "model.safetensors")
    assert read_layout(directory).tensors.keys() == tensors.keys()
    save_file(inner | {n: t.clone() for n, t in tensors.items()}, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match="holds tensors twice"):
        read_layout(directory)
