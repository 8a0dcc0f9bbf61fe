"""The written recipe means what was learned, to mergekit too, and is believed only where it still holds."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.ama.small import made
from tests.evaluate import tiny


@pytest.mark.slow
def test_mergekit_makes_the_same_model_of_the_written_recipe(pair, tmp_path) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    (found,) = made(pair, tmp_path / "learned.yaml", blocks="layers")
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "ours")
    config = MergeConfiguration.model_validate(yaml.safe_load(found.path.read_text()))
    run_merge(config, str(tmp_path / "theirs"), MergeOptions(copy_tokenizer=False, quiet=True))
    ours, theirs = (load_file(tmp_path / side / "model.safetensors") for side in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], rtol=1e-6, atol=1e-8), name


def test_a_tensor_that_the_recipe_places_is_taken_from_there_byte_for_byte(pair, tmp_path) -> None:
    (found,) = made(pair, tmp_path / "learned.yaml", embeddings="sft", final_norm="rlhf", lm_head="average")
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "merged")
    merged, sft, rlhf = (load_file(place / "model.safetensors") for place in (tmp_path / "merged", pair / "sft", pair / "rlhf"))
    assert torch.equal(merged["model.embed_tokens.weight"], sft["model.embed_tokens.weight"])
    assert torch.equal(merged["model.norm.weight"], rlhf["model.norm.weight"])
    assert torch.allclose(merged["lm_head.weight"], 0.4 * sft["lm_head.weight"] + 0.6 * rlhf["lm_head.weight"], atol=1e-7)


@pytest.mark.parametrize("tied", ["sft", "rlhf"])
def test_the_written_recipe_makes_the_average_that_was_measured_where_one_model_is_tied(pair, tmp_path, tied) -> None:
    import shutil

    for seed, name in enumerate(("sft", "rlhf")):
        shutil.copytree(pair / name, tmp_path / name)
        if name == tied:
            tiny.llama(seed, tied=True, layers=3).save_pretrained(tmp_path / name)
    shutil.copy(pair / "pairs.jsonl", tmp_path)
    (found,) = made(tmp_path, tmp_path / "out.yaml", training={"steps": 3, "batch_size": 4})
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr()
    sft, rlhf = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("sft", "rlhf"))
    share = found.learned.shares[-1]
    assert torch.allclose(model.lm_head.weight, share * sft.lm_head.weight + (1 - share) * rlhf.lm_head.weight, atol=1e-6)


def test_ratios_are_learned_again_where_the_weights_have_changed_and_the_shapes_have_not(pair, tmp_path) -> None:
    import shutil

    from mergetool.fingerprints import checkpoint_identity

    for name in ("sft", "rlhf"):
        shutil.copytree(pair / name, tmp_path / name)
    shutil.copy(pair / "pairs.jsonl", tmp_path)
    short = {"training": {"steps": 2, "batch_size": 4}}
    (first,) = made(tmp_path, tmp_path / "out.yaml", **short)
    assert made(tmp_path, tmp_path / "out.yaml", **short)[0].already_done
    tiny.llama(7, tied=False, layers=3).save_pretrained(tmp_path / "rlhf")
    checkpoint_identity.cache_clear()
    (again,) = made(tmp_path, tmp_path / "out.yaml", **short)
    assert not again.already_done
    assert again.learned.uniform_nll != first.learned.uniform_nll


def test_a_file_whose_facts_were_edited_is_learned_again(pair, tmp_path) -> None:
    short = {"training": {"steps": 1}}
    made(pair, tmp_path / "out.yaml", **short)
    text = (tmp_path / "out.yaml").read_text()
    (tmp_path / "out.yaml").write_text(text.replace("# learned: {", "# learned: ["))
    assert not made(pair, tmp_path / "out.yaml", **short)[0].already_done
