"""From recipe to recipe: what is learned is better than uniform where it was learned, and the file means what was learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from mergetool.ama import ama_recipe, run_ama
from mergetool.cli.main import app
from mergetool.errors import MergetoolError
from mergetool.evaluate import Task, evaluate
from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge
from tests.evaluate import tiny


def mapping(**changes) -> dict:
    return {
        "sft_model": "sft",
        "rlhf_model": "rlhf",
        "alpha": 0.4,
        "data": {"train": "pairs.jsonl", "limit": 12},
        "training": {"steps": 12, "batch_size": 12, "learning_rate": 0.3},
        **changes,
    }


def made(pair: Path, out: Path | None = None, **changes):
    return run_ama(ama_recipe(mapping(**changes), pair), out, device="cpu")


def test_learned_ratios_make_the_chosen_answers_more_likely_than_uniform_averaging_at_the_same_mean(pair) -> None:
    (found,) = made(pair)
    assert found.learned.nll < found.learned.uniform_nll - 0.01
    assert sum(found.learned.shares) / 3 == pytest.approx(0.4)
    assert found.learned.losses[-1] < found.learned.losses[0]


def test_the_written_recipe_merges_to_the_model_that_was_measured(pair, tmp_path) -> None:
    (found,) = made(pair, tmp_path / "learned.yaml")
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "merged")
    rows = [{"prompt": f"q{at}", "completion": f" yes {at}"} for at in range(12)]
    score = evaluate(tmp_path / "merged", [Task("chosen", ("nll",), rows)])["chosen.nll"]["value"]
    assert score == pytest.approx(found.learned.nll, abs=1e-5)


def test_uniform_is_the_linear_merge_at_the_mean(pair, tmp_path) -> None:
    (found,) = made(pair)
    recipe = {
        "merge_method": "linear",
        "models": [
            {"model": str(pair / "sft"), "parameters": {"weight": 0.4}},
            {"model": str(pair / "rlhf"), "parameters": {"weight": 0.6}},
        ],
    }
    (tmp_path / "uniform.yaml").write_text(yaml.safe_dump(recipe))
    merge_to_directory(plan_merge(load_merge_recipe(tmp_path / "uniform.yaml")), tmp_path / "merged")
    rows = [{"prompt": f"q{at}", "completion": f" yes {at}"} for at in range(12)]
    score = evaluate(tmp_path / "merged", [Task("chosen", ("nll",), rows)])["chosen.nll"]["value"]
    assert score == pytest.approx(found.learned.uniform_nll, abs=1e-5)


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


def test_a_heavy_penalty_keeps_the_ratios_at_the_mean(pair) -> None:
    free, held = (made(pair, penalty=strength)[0].learned.shares for strength in (0.0, 1e3))
    assert max(abs(share - 0.4) for share in free) > 0.1
    assert max(abs(share - 0.4) for share in held) < 0.1


def test_the_same_seed_gives_the_same_ratios_and_checkpointed_activations_too(pair) -> None:
    training = {"steps": 3, "batch_size": 5}
    first, again, thrifty = (
        made(pair, training={**training, **more})[0].learned.shares for more in ({}, {}, {"gradient_checkpointing": True})
    )
    assert first == again
    assert thrifty == pytest.approx(first, rel=1e-6)
    assert made(pair, training={**training, "seed": 1})[0].learned.shares != first


def test_best_of_n_learns_from_the_answers_that_a_reward_likes_best(pair, tmp_path) -> None:
    from mergetool.ama.samples import best_answers
    from mergetool.evaluate.run import load_model, load_tokenizer

    (tmp_path / "brief.py").write_text(
        "def brief(prompts, completions, **columns):\n    return [-len(c) for c in completions]\n"
    )
    data = {"train": str(pair / "pairs.jsonl"), "limit": 4, "best_of": 4, "max_new_tokens": 6}
    whole = mapping(sft_model=str(pair / "sft"), rlhf_model=str(pair / "rlhf"), data=data, reward="brief.py:brief")
    recipe = ama_recipe(whole, tmp_path)
    model, tokenizer = load_model(pair / "rlhf", "cpu"), load_tokenizer(pair / "rlhf")
    notes: list[str] = []
    rows = [{"prompt": f"q{at}"} for at in range(4)]
    kept = best_answers(recipe, model, tokenizer, rows, notes.append)
    assert [row["prompt"] for row in kept] == [row["prompt"] for row in rows]
    best, every = (float(notes[0].split(mark)[1].split(",")[0]) for mark in ("mean reward ", "of all answers "))
    assert best > every
    assert best == sum(-len(row["completion"]) for row in kept) / 4
    assert kept == best_answers(recipe, model, tokenizer, rows, notes.append)  # seeded
    assert run_ama(recipe, device="cpu")[0].learned.nll > 0


def test_best_of_n_with_a_reward_model_keeps_the_answer_that_it_scores_highest(pair, tmp_path) -> None:
    from mergetool.ama.samples import best_answers
    from mergetool.evaluate.reward_model import RewardModel
    from mergetool.evaluate.run import load_model, load_tokenizer

    judge = tiny.reward_model(tmp_path / "judge")
    data = {"train": str(pair / "pairs.jsonl"), "limit": 3, "best_of": 4, "max_new_tokens": 5}
    whole = mapping(sft_model=str(pair / "sft"), rlhf_model=str(pair / "rlhf"), data=data, reward=str(judge))
    recipe = ama_recipe(whole, tmp_path)
    model, tokenizer = load_model(pair / "rlhf", "cpu"), load_tokenizer(pair / "rlhf")
    notes: list[str] = []
    rows = [{"prompt": f"q{at}"} for at in range(3)]
    kept = best_answers(recipe, model, tokenizer, rows, notes.append)
    scores = RewardModel(judge, "cpu").scores([row["prompt"] for row in kept], [row["completion"] for row in kept])
    best, every = (float(notes[0].split(mark)[1].split(",")[0]) for mark in ("mean reward ", "of all answers "))
    assert sum(scores) / 3 == pytest.approx(best, rel=1e-3)
    assert best > every


# --- the command line ------------------------------------------------------------------------------------------------


def ama(folder: Path, out: Path, *options: str, **changes):
    whole = mapping(sft_model=str(folder / "sft"), rlhf_model=str(folder / "rlhf"), **changes)
    whole["data"] = {**whole["data"], "train": str(folder / "pairs.jsonl")}
    path = out.parent / "ama-recipe.yaml"
    path.write_text(yaml.safe_dump(whole))
    return CliRunner().invoke(app, ["ama", str(path), str(out), "--device", "cpu", *options])


def test_a_list_of_means_gives_a_recipe_for_each_and_a_second_run_learns_only_what_is_missing(pair, tmp_path) -> None:
    training = {"steps": 2, "batch_size": 4}
    first = ama(pair, tmp_path / "out.yaml", alpha=[0.2, 0.6], training=training)
    assert first.exit_code == 0, first.output
    paths = [tmp_path / f"out-alpha{alpha}.yaml" for alpha in (0.2, 0.6)]
    assert all(path.is_file() for path in paths)
    before = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    found = json.loads(ama(pair, tmp_path / "out.yaml", "--json", alpha=[0.2, 0.6], training=training).stdout)
    assert [one["already_done"] for one in found] == [True, False]
    assert paths[0].stat().st_mtime_ns == before[0]
    changed = json.loads(ama(pair, tmp_path / "out.yaml", "--json", alpha=[0.2, 0.6], training={"steps": 3}).stdout)
    assert [one["already_done"] for one in changed] == [False, False]


@pytest.mark.parametrize(
    ("changes", "out", "line"),
    [
        ({"alpha": 1.5}, "out.yaml", "alpha"),
        ({"alpha": [0.2, 0.2]}, "out.yaml", "alpha names a value twice"),
        ({"blocks": 9}, "out.yaml", "9 parts of a model with 3 layers"),
        ({"blocs": 3}, "out.yaml", "did you mean 'blocks'"),
        ({"reward": "x.py:f"}, "out.yaml", "reward is given and data.best_of is not"),
        ({"data": {"train": "x", "best_of": 4}}, "out.yaml", "data.best_of is given and reward is not"),
        ({}, "out.txt", "a merge recipe is YAML"),
        ({}, "mine.yaml", "is there, and not made by"),
        ({"data": {"train": "x", "max_length": 2}}, "out.yaml", "raise data.max_length"),
        ({"data": {"train": "x", "best_of": 2}, "reward": "none.py:f"}, "out.yaml", "none.py: cannot be read"),
    ],
    ids=["share", "twice", "blocks", "misspelt", "reward", "best-of", "ending", "mine", "length", "reward-file"],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(pair, tmp_path, changes, out, line) -> None:
    (tmp_path / "mine.yaml").write_text("merge_method: linear\n")
    result = ama(pair, tmp_path / out, **changes)
    assert result.exit_code == 2, result.output
    told = [text for text in result.stderr.splitlines() if text.startswith("mergetool: ")]
    assert len(told) == 1
    assert line in told[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ama-recipe.yaml", "mine.yaml"]


def test_models_that_do_not_fit_are_found_before_anything_is_loaded(pair, tmp_path) -> None:
    tiny.llama(0, tied=False, layers=2).save_pretrained(tmp_path / "small")
    with pytest.raises(MergetoolError, match=r"small: lacks tensor 'model.layers.2.* of one architecture"):
        made(pair, rlhf_model=str(tmp_path / "small"))


def test_the_recipe_that_ships_is_valid() -> None:
    from mergetool.ama import check_ama, load_ama_recipe
    from mergetool.config.packaged import list_recipes, recipe_path

    names = [name for kind, name in list_recipes() if kind == "ama"]
    assert names
    for name in names:
        path = recipe_path("ama", name)
        assert f"mergetool ama recipes/ama/{name}.yaml" in path.read_text()
        if "lab:" in path.read_text():
            assert check_ama(load_ama_recipe(path))["parameters"] > 0


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


def test_a_model_averaged_with_itself_is_that_model(pair, tmp_path) -> None:
    (found,) = made(pair, tmp_path / "same.yaml", rlhf_model="sft", training={"steps": 1})
    merge_to_directory(plan_merge(load_merge_recipe(found.path)), tmp_path / "merged")
    merged, sft = (load_file(place / "model.safetensors") for place in (tmp_path / "merged", pair / "sft"))
    assert all(torch.equal(merged[name], sft[name]) for name in sft)


def test_a_file_whose_facts_were_edited_is_learned_again(pair, tmp_path) -> None:
    short = {"training": {"steps": 1}}
    made(pair, tmp_path / "out.yaml", **short)
    text = (tmp_path / "out.yaml").read_text()
    (tmp_path / "out.yaml").write_text(text.replace("# learned: {", "# learned: ["))
    assert not made(pair, tmp_path / "out.yaml", **short)[0].already_done
