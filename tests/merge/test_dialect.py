"""Recipes as people write them: what mergekit runs, runs; what nobody reads is said once; what nobody knows is an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from mergetool.errors import RecipeError
from mergetool.merge import load_merge_recipe, merge_tensors, plan_merge
from mergetool.merge.dialect import PARAMETERS
from tests.helpers import write_triple


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("dialect"))


def body(triple: dict[str, Path], method: str, *, each: str = "", top: str = "", parameters: str = "") -> str:
    weight = "weight: 0.5, " if "weight" not in each and method != "slerp" else ""
    models = "".join(f"  - {{model: {triple[m]}, parameters: {{{weight}{each}}}}}\n" for m in ("sft", "rlhf"))
    base = triple["sft" if method == "slerp" else "base"]
    return f"{top}merge_method: {method}\nbase_model: {base}\nmodels:\n{models}parameters: {{{parameters}}}\n"


def merged(tmp_path: Path, text: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    (tmp_path / "r.yaml").write_text(text)
    plan = plan_merge(load_merge_recipe(tmp_path / "r.yaml"), "native")
    return dict(merge_tensors(plan)), plan.notes


READ_PAST = [
    ("task_arithmetic", {"each": "density: 0.5"}, "density"),
    ("slerp", {"each": "weight: 0.3", "parameters": "t: 0.4"}, "weight"),
    ("slerp", {"parameters": "t: 0.4, embed_slerp: true"}, "embed_slerp"),
    ("linear", {"parameters": "int8_mask: true"}, "int8_mask"),
    ("ties", {"parameters": "density: 0.5, select_topk: 0.1"}, "select_topk"),
    ("linear", {"top": "random_seed: 0\n"}, "random_seed"),
    ("linear", {"top": "license: apache-2.0\ntags: [merge]\n"}, "license, tags"),
    ("linear", {"top": "out_shard_size: 5B\nlazy_unpickle: true\n"}, "out_shard_size, lazy_unpickle"),
    ("ties", {"top": "select_topk: 0.15\n"}, "select_topk"),
    ("multislerp", {"top": "pad_to_multiple_of: 8\n"}, "pad_to_multiple_of"),
    ("ties", {"parameters": "density: 0.5, dtype: bfloat16"}, "dtype"),
]


@pytest.mark.parametrize(("method", "words", "said"), READ_PAST, ids=[said for _, _, said in READ_PAST])
def test_a_word_that_is_not_read_is_said_once_and_changes_nothing(
    triple: dict[str, Path], tmp_path: Path, method: str, words: dict[str, str], said: str
) -> None:
    read = {key: text.split(", ") for key, text in words.items() if key != "top"}
    kept = {key: ", ".join(w for w in each if w.partition(":")[0] not in said.split(", ")) for key, each in read.items()}
    expected, nothing = merged(tmp_path, body(triple, method, **kept))
    found, notes = merged(tmp_path, body(triple, method, **words))
    assert nothing == ()
    assert len(notes) == 1
    assert said in notes[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("word", ["density: 0.2", "weight: 1.0", "layer_range: [0, 2]"])
def test_a_word_beside_a_model_is_not_read_there_and_says_where_it_belongs(
    triple: dict[str, Path], tmp_path: Path, word: str
) -> None:
    text = body(triple, "ties", each="density: 0.5")
    beside = text.replace("parameters: {weight", f"{word}, parameters: {{weight")
    assert beside != text
    (expected, nothing), (found, notes) = merged(tmp_path, text), merged(tmp_path, beside)
    assert nothing == ()
    assert len(notes) == 1
    assert f"{word.partition(':')[0]} beside a model: not read there" in notes[0]
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_revision_beside_a_model_is_refused_for_another_model_is_meant(triple: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"write `model: .*sft@v1`"):
        merged(tmp_path, body(triple, "linear").replace("sft, parameters", "sft, revision: v1, parameters"))


@pytest.mark.parametrize(("word", "near"), [("densty: 0.5", "density"), ("wieght: 1", "weight"), ("tt: 1", "t")])
def test_a_word_that_nobody_knows_is_an_error_with_the_nearest_one(
    triple: dict[str, Path], tmp_path: Path, word: str, near: str
) -> None:
    with pytest.raises(RecipeError, match=near):
        merged(tmp_path, body(triple, "ties", parameters=word))
    with pytest.raises(RecipeError, match="licence"):
        merged(tmp_path, body(triple, "linear", top="licence: x\n"))


def test_every_parameter_of_mergekits_methods_is_known() -> None:
    from mergekit.merge_methods.registry import registered_methods

    assert {p.name for m in registered_methods() for p in m.spec.parameters} <= PARAMETERS


@pytest.mark.parametrize(
    ("plain", "written"),
    [
        ({"parameters": "density: 0.5, normalize: true"}, {"parameters": "density: 0.5, normalize: 1.0"}),
        ({"parameters": "density: 0.5, normalize: false"}, {"parameters": "density: 0.5, normalize: 0"}),
        ({"parameters": "density: 0.5, rescale: true"}, {"parameters": "density: 0.5, rescale: 1.0"}),
        ({"parameters": "density: 0.5, normalize: false"}, {"parameters": "density: '0.5', normalize: 'False'"}),
        ({"parameters": "density: [0.5, 0.7]"}, {"parameters": "density: ['0.5', '7e-1']"}),
        ({"top": "dtype: bfloat16\n"}, {"top": "dtype: torch.bfloat16\n"}),
        ({"each": "density: 0.5"}, {"top": "_p: &p {density: 0.5}\n", "each": "<<: *p"}),
        ({"parameters": "density: 0.5"}, {"top": "defaults: &d 0.5\n", "parameters": "density: *d"}),
    ],
)
def test_another_spelling_is_the_same_recipe(triple: dict[str, Path], tmp_path: Path, plain: dict, written: dict) -> None:
    expected, _ = merged(tmp_path, body(triple, "ties", **plain))
    found, notes = merged(tmp_path, body(triple, "ties", **written))
    assert notes == ()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_whole_number_may_have_a_point(triple: dict[str, Path], tmp_path: Path) -> None:
    text = body(triple, "karcher", each="", parameters="max_iter: 3").replace("weight: 0.5, ", "")
    expected, found = merged(tmp_path, text), merged(tmp_path, text.replace("max_iter: 3", "max_iter: 3.0"))
    assert all(torch.equal(found[0][name], tensor) for name, tensor in expected[0].items())
    with pytest.raises(RecipeError, match="max_iter"):
        merged(tmp_path, text.replace("max_iter: 3", "max_iter: 3.5"))


def test_a_recipe_of_mergekit_moe_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="mergekit-moe"):
        merged(tmp_path, "base_model: m\ngate_mode: hidden\nexperts: [{source_model: m, positive_prompts: [x]}]\n")


def test_an_anchor_that_nobody_uses_is_no_licence_for_a_misspelled_key(triple: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="parameters"):
        merged(tmp_path, body(triple, "linear").replace("parameters: {}", "paramters: &p {weight: 1}"))


def test_float64_is_written_where_it_is_asked_for(triple: dict[str, Path], tmp_path: Path) -> None:
    found, _ = merged(tmp_path, body(triple, "linear", top="dtype: float64\n"))
    assert {tensor.dtype for tensor in found.values()} == {torch.float64}


@pytest.mark.parametrize("t", [1.2, -0.3, [0, 1.5]])
def test_slerp_goes_on_beyond_its_ends_as_mergekit_does(triple: dict[str, Path], tmp_path: Path, t: float | list) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions
    from safetensors.torch import load_file

    text = body(triple, "slerp", top="dtype: float32\n", parameters=f"t: {t}")
    found, _ = merged(tmp_path, text)
    run_merge(
        MergeConfiguration.model_validate(yaml.safe_load(text)), str(tmp_path / "m"), MergeOptions(write_model_card=False)
    )
    for name, tensor in load_file(tmp_path / "m" / "model.safetensors").items():
        if name in found:
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6 * float(tensor.abs().max()))
