"""Parts of a model by mergekit's words and by paths: every tensor is in one of them, as mergekit 0.1.5 has it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import transformers

from mergetool.architecture.modules import parts_of
from mergetool.architecture.reading import live_name
from mergetool.architecture.skeleton import skeleton_of
from mergetool.checkpoint.layout import Layout, read_layout
from mergetool.errors import RecipeError
from tests.architecture.families import shrunk


def saved(kind: str, place: Path) -> Layout:
    cls = getattr(transformers, kind)
    cls(shrunk(cls.config_class(), kind)).save_pretrained(place)
    return read_layout(place)


def by_mergekit(config: dict, architecture: str) -> dict[str, str]:
    """Weight in memory, layers without their numbers -> part, from mergekit's own definition of the architecture."""
    import mergekit

    skeleton, found = skeleton_of(config), {}
    assert skeleton is not None
    definition = json.loads((Path(mergekit.__file__).parent / f"_data/architectures/{architecture}.json").read_text())
    for word, module in definition["modules"].items():
        parts = module["architecture"]
        weights = [*parts["pre_weights"], *parts["layer_templates"]["weights"], *parts["post_weights"]]
        for weight in weights:
            for name in (weight["name"], *(weight.get("aliases") or [])):
                whole = (module.get("weight_prefix") or "") + name.replace("${layer_index}", "0")
                found[numberless(live_name(skeleton, whole))] = word
    return found


def numberless(name: str) -> str:
    return re.sub(r"\.\d+\.", ".N.", name)


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [("Gemma3ForConditionalGeneration", "gemma3vl"), ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl")],
)
def test_the_parts_of_a_vision_language_model_are_mergekits(tmp_path: Path, kind: str, architecture: str) -> None:
    layout = saved(kind, tmp_path)
    skeleton = skeleton_of(layout.config)
    assert skeleton is not None
    theirs = by_mergekit(layout.config, architecture)
    ours = parts_of(layout, ["text_decoder", "vision_tower", "multi_modal_projector"])
    compared = {name: theirs.get(numberless(live_name(skeleton, name))) for name in ours}
    assert {name: word for name, word in ours.items() if compared[name] not in (None, word)} == {}
    assert sum(word is not None for word in compared.values()) > 0.7 * len(ours)  # it names some weights as they once were


@pytest.mark.parametrize(
    ("kind", "words", "where"),
    [
        ("T5ForConditionalGeneration", ["encoder", "decoder", "shared"], {"shared.weight": "shared"}),
        ("WhisperForConditionalGeneration", ["encoder", "decoder"], 
         {"model.decoder.layers.0.encoder_attn.k_proj.weight": "decoder"}),
        ("LlavaForConditionalGeneration", ["vision_tower", "default"], {"multi_modal_projector.linear_1.weight": "default"}),
        ("LlavaForConditionalGeneration", ["language_model", "vision_tower", "multi_modal_projector"],
         {"language_model.model.norm.weight": "language_model"}),
        ("LlamaForCausalLM", ["model.layers", "default"], {"lm_head.weight": "default", "model.norm.weight": "default"}),
    ],
)  # fmt: skip
def test_a_part_may_be_a_path_and_default_is_the_rest(
    tmp_path: Path, kind: str, words: list[str], where: dict[str, str]
) -> None:
    layout = saved(kind, tmp_path)
    found = parts_of(layout, words)
    assert found.keys() == layout.tensors.keys()
    assert set(found.values()) == set(words)
    assert where.items() <= {**where, **found}.items()
    assert all(word == words[0] for name, word in found.items() if f".{name}".startswith(f".{words[0]}."))


@pytest.mark.parametrize(
    ("kind", "words", "says"),
    [
        ("T5ForConditionalGeneration", ["encoder", "decoder"], r"'shared\.weight' \(1 tensors in all\) is in none of"),
        ("LlavaForConditionalGeneration", ["vision_towr", "default"], "did you mean 'vision_tower'"),
        ("LlamaForCausalLM", ["text_decoder", "vision_tower"], "has no part of this name"),
    ],
)
def test_a_part_that_is_not_there_and_a_tensor_in_none_are_errors(
    tmp_path: Path, kind: str, words: list[str], says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        parts_of(saved(kind, tmp_path), words)
