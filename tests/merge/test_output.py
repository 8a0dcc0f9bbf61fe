"""Nothing half-written is ever visible, an interrupted merge resumes to the same bytes, and the output is complete."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.writer import partial_directory
from mergetool.errors import CheckpointError, MergetoolError, OutputError, RecipeError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.combine import TensorMerger
from mergetool.merge.engine import merge_tensors
from tests.helpers import random_weights, write_checkpoint, write_tokenizer, write_triple


@pytest.fixture
def triple(tmp_path: Path) -> dict[str, Path]:
    return write_triple(tmp_path / "in", torch.bfloat16)


def ties(triple: dict[str, Path], **fields: object) -> MergeRecipe:
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5, "density": 0.5}} for m in ("sft", "rlhf")]
    return MergeRecipe(**{"merge_method": "ties", "base_model": str(triple["base"]), "models": models, **fields})


def digest(directory: Path) -> dict[str, str]:
    return {p.name: sha256(p.read_bytes()).hexdigest() for p in sorted(directory.glob("*.safetensors"))}


def test_what_is_hashed_and_let_go_behind_the_writers_is_what_is_on_the_disk(
    triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mergetool.checkpoint import writer

    merge_to_directory(plan_merge(ties(triple)), tmp_path / "whole", shard_bytes=20_000)
    monkeypatch.setattr(writer, "_HASHED_AT_ONCE", 1000)
    monkeypatch.setattr(writer, "_SYNCED_AT_ONCE", 5000)
    manifest = merge_to_directory(plan_merge(ties(triple)), tmp_path / "out", shard_bytes=20_000)
    assert len(manifest["outputs_sha256"]) > 1
    assert manifest["outputs_sha256"] == digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_the_output_is_what_save_pretrained_would_give(triple: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "out"
    merge_to_directory(plan_merge(ties(triple)), out)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    model.save_pretrained(tmp_path / "again")
    ours, theirs = load_file(out / "model.safetensors"), load_file(tmp_path / "again" / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.7
    assert AutoTokenizer.from_pretrained(out).chat_template


def test_the_config_says_the_dtype_of_the_tensors(triple: dict[str, Path], tmp_path: Path) -> None:
    merge_to_directory(plan_merge(ties(triple, out_dtype="float16")), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float16"
    assert {t.dtype for t in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float16}


def test_an_index_lists_the_shards_of_a_split_output(triple: dict[str, Path], tmp_path: Path) -> None:
    merge_to_directory(plan_merge(ties(triple)), tmp_path / "out", shard_bytes=5_000)
    layout = read_layout(tmp_path / "out")
    assert len(layout.headers) > 2
    assert layout.tensors.keys() == read_layout(triple["base"]).tensors.keys()


def test_the_manifest_names_recipe_seed_inputs_outputs_and_distances(triple: dict[str, Path], tmp_path: Path) -> None:
    manifest = merge_to_directory(plan_merge(ties(triple, seed=5)), tmp_path / "out")
    assert manifest == json.loads((tmp_path / "out/mergetool.json").read_text())
    assert manifest["seed"] == 5
    assert manifest["outputs_sha256"] == digest(tmp_path / "out")
    assert manifest["recipe"]["merge_method"] == "ties"
    base, out = load_file(triple["base"] / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    expected = sum(float((out[n].double() - base[n].double()).square().sum()) for n in base) ** 0.5
    assert manifest["distances"][str(triple["base"])] == pytest.approx(expected, rel=1e-5)
    assert "ties" in (tmp_path / "out/README.md").read_text()


def test_a_merge_that_changed_nothing_is_told(triple: dict[str, Path], tmp_path: Path) -> None:
    models = [{"model": str(triple["rlhf"]), "parameters": {"weight": 1e-9}}]
    recipe = MergeRecipe(merge_method="task_arithmetic", base_model=str(triple["base"]), models=models)
    warnings = merge_to_directory(plan_merge(recipe), tmp_path / "out")["warnings"]
    assert len(warnings) == 1
    assert str(triple["base"]) in warnings[0]


def test_the_same_merge_twice_does_nothing_and_another_one_is_refused(triple: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge_to_directory(plan_merge(ties(triple)), out)
    before = out.stat().st_mtime_ns
    merge_to_directory(plan_merge(ties(triple)), out)
    assert out.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="another result"):
        merge_to_directory(plan_merge(ties(triple, out_dtype="float16")), out)


@pytest.mark.parametrize("what", ["a file", "a directory with something in it"])
def test_an_output_that_is_not_ours_is_left_untouched(triple: dict[str, Path], tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    if what == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="untouched"):
        merge_to_directory(plan_merge(ties(triple)), out)
    assert (out if out.is_file() else out / "mine.txt").read_text() == "mine"
    assert not partial_directory(out).exists()


def test_two_runs_into_one_output_do_not_mix(triple: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    entered = []

    def second(done: int, total: int, label: str) -> None:
        if not entered:
            entered.append(1)
            with pytest.raises(OutputError, match="another run"):
                merge_to_directory(plan_merge(ties(triple)), out)

    merge_to_directory(plan_merge(ties(triple)), out, progress=second)
    assert entered
    assert out.is_dir()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_nan_or_inf_names_the_tensor_and_the_model_and_leaves_nothing(tmp_path: Path, bad: float) -> None:
    triple = write_triple(tmp_path / "in")
    weights = load_file(triple["rlhf"] / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
    write_checkpoint(triple["rlhf"], weights)
    with pytest.raises(CheckpointError) as caught:
        merge_to_directory(plan_merge(ties(triple)), tmp_path / "out")
    assert "model.layers.1.mlp.up_proj.weight" in str(caught.value)
    assert str(triple["rlhf"]) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    merge_to_directory(plan_merge(ties(triple)), tmp_path / "out", allow_nonfinite=True)


def test_a_tensor_that_is_mostly_nan_is_merged_where_that_is_allowed(tmp_path: Path) -> None:
    triple = write_triple(tmp_path / "in")
    weights = load_file(triple["rlhf"] / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][1:] = float("nan")
    write_checkpoint(triple["rlhf"], weights)
    merge_to_directory(plan_merge(ties(triple)), tmp_path / "out", allow_nonfinite=True)
    merged = load_file(tmp_path / "out" / "model.safetensors")
    bad = [name for name, tensor in merged.items() if not tensor.isfinite().all()]
    assert bad == ["model.layers.1.mlp.up_proj.weight"]


def test_a_result_that_overflows_float16_is_an_error(tmp_path: Path) -> None:
    base = random_weights(0)
    far = {n: w + 60_000 for n, w in base.items()}
    paths = {"base": write_checkpoint(tmp_path / "base", base), "far": write_checkpoint(tmp_path / "far", far)}
    recipe = MergeRecipe(
        merge_method="task_arithmetic", base_model=str(paths["base"]), out_dtype="float16",
        models=[{"model": str(paths["far"]), "parameters": {"weight": 2.0}}],
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="does not fit into float16"):
        merge_to_directory(plan_merge(recipe), tmp_path / "out")


def test_tensors_that_are_no_weights_are_carried_and_must_agree(tmp_path: Path) -> None:
    paths = {}
    for i, name in enumerate(("base", "sft", "rlhf")):
        weights = random_weights(i)
        weights["vision.encoder.table"] = torch.arange(12, dtype=torch.int64).view(3, 4)
        weights["model.layers.0.block_sparse_moe.experts.0.w1.weight"] = torch.full((5, 7), float(i))
        paths[name] = write_checkpoint(tmp_path / name, weights)
    merge_to_directory(plan_merge(ties(paths)), tmp_path / "out")
    out = load_file(tmp_path / "out/model.safetensors")
    assert out["vision.encoder.table"].tolist() == torch.arange(12).view(3, 4).tolist()
    assert "model.layers.0.block_sparse_moe.experts.0.w1.weight" in out
    weights["vision.encoder.table"][0, 0] = 99
    write_checkpoint(tmp_path / "rlhf", weights)
    with pytest.raises(CheckpointError, match=r"integer tensor 'vision\.encoder\.table' differs"):
        merge_to_directory(plan_merge(ties(paths)), tmp_path / "other")


def test_a_tied_and_an_untied_model_merge_into_an_untied_one(tmp_path: Path) -> None:
    tied = random_weights(0)
    untied = random_weights(1, tie_word_embeddings=False)
    a = write_checkpoint(tmp_path / "a", tied)
    b = write_checkpoint(tmp_path / "b", untied, tie_word_embeddings=False)
    models = [{"model": str(m), "parameters": {"weight": 0.5}} for m in (a, b)]
    merge_to_directory(plan_merge(MergeRecipe(merge_method="linear", models=models)), tmp_path / "out")
    out = load_file(tmp_path / "out/model.safetensors")
    expected = 0.5 * tied["model.embed_tokens.weight"] + 0.5 * untied["lm_head.weight"]
    torch.testing.assert_close(out["lm_head.weight"], expected)
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False


def test_shapes_names_and_vocabularies_that_differ_are_errors(tmp_path: Path) -> None:
    a = write_checkpoint(tmp_path / "a", random_weights(0))
    wide = write_checkpoint(tmp_path / "wide", random_weights(0, hidden_size=64), hidden_size=64)
    deep = write_checkpoint(tmp_path / "deep", random_weights(0, num_hidden_layers=4), num_hidden_layers=4)
    words = write_checkpoint(tmp_path / "words", random_weights(1))
    write_tokenizer(words, extra="other")
    arch = write_checkpoint(tmp_path / "arch", random_weights(1), model_type="mistral")

    def merge(other: Path, **fields: object) -> None:
        models = [{"model": str(m), "parameters": {"weight": 0.5}} for m in (a, other)]
        plan_merge(MergeRecipe(merge_method="linear", models=models, **fields))

    with pytest.raises(CheckpointError, match=r"wide: tensor '.*' has shape \[64, 64\], but \[64, 32\]"):
        merge(wide)
    with pytest.raises(CheckpointError, match=r"lacks tensor 'model.layers.3.*\(9 in all\)"):
        merge(deep)
    with pytest.raises(CheckpointError, match="vocabulary differs"):
        merge(words)
    merge(words, tokenizer_source=str(a))
    with pytest.raises(CheckpointError, match="'mistral', but 'llama'"):
        merge(arch)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"merge_method": "tie"}, "did you mean 'ties'"),
        ({"parameters": {"denstiy": 0.5}}, "did you mean 'density'"),
        ({"parameters": {"density": 1.5}}, r"number in \[0, 1\]"),
        ({"parameters": {"lambda": "x"}}, "finite number"),
        ({"parameters": {"rescale": "both"}}, "unbiased, l1, none"),
        ({"parameters": {"normalize": 0.5}}, "true or false"),
        ({"base_model": None}, "needs base_model"),
    ],
)
def test_a_recipe_that_cannot_work_says_why(triple: dict[str, Path], change: dict, says: str) -> None:
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    with pytest.raises(RecipeError, match=says):
        plan_merge(ties(triple, models=models, **change))


def test_a_model_without_a_weight_names_the_place(triple: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match=r"models\[0\] has no weight"):
        plan_merge(ties(triple, models=[{"model": str(triple["sft"])}]))


def test_an_input_that_changes_during_the_merge_is_noticed(triple: dict[str, Path], tmp_path: Path) -> None:
    def touch(done: int, total: int, label: str) -> None:
        os.utime(triple["rlhf"] / "model.safetensors")

    with pytest.raises(CheckpointError, match="changed while"):
        merge_to_directory(plan_merge(ties(triple)), tmp_path / "out", progress=touch)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_merge_resumes_and_redoes_only_what_was_missing(
    triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge_to_directory(plan_merge(ties(triple)), tmp_path / "whole")
    out = tmp_path / "out"
    real, runs = TensorMerger.run, []

    def run(self: object, tensors: list, emits: list, whole: list) -> list:
        runs.append(tensors[0].name)
        if len(runs) == 10:
            raise KeyboardInterrupt
        return real(self, tensors, emits, whole)

    monkeypatch.setattr(TensorMerger, "run", run)
    with pytest.raises(KeyboardInterrupt):
        merge_to_directory(plan_merge(ties(triple)), out, threads=1)
    assert not out.exists()
    first = runs[:9]
    runs[:] = [""] * 10  # past the interruption
    merge_to_directory(plan_merge(ties(triple)), out, threads=1)
    assert not set(runs) & set(first)
    assert digest(out) == digest(tmp_path / "whole")
    assert not partial_directory(out).exists()


def test_a_resumable_run_of_another_recipe_is_not_taken_over(
    triple: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: object, tensors: list, emits: list, whole: list) -> list:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TensorMerger, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            merge_to_directory(plan_merge(ties(triple)), tmp_path / "out")
    other = plan_merge(ties(triple, out_dtype="float16"))
    with pytest.raises(OutputError, match="--fresh"):
        merge_to_directory(other, tmp_path / "out")
    merge_to_directory(other, tmp_path / "out", fresh=True)


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_nothing_half_made_and_the_rerun_gives_the_same_bytes(tmp_path: Path) -> None:
    config = {"hidden_size": 256, "intermediate_size": 512, "vocab_size": 2000, "num_hidden_layers": 6}
    triple = write_triple(tmp_path / "in", torch.bfloat16, **config)
    recipe = ties(triple).to_dict()
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    merge_to_directory(plan_merge(ties(triple)), tmp_path / "whole", threads=2)
    # a process that has imported torch once, and merges in forked children slowly enough to be hit anywhere
    script = (
        "import os, sys, time\n"
        "from mergetool.merge import load_merge_recipe, merge_to_directory, plan_merge\n"
        "for _ in sys.stdin:\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        plan = plan_merge(load_merge_recipe(sys.argv[1]))\n"
        "        merge_to_directory(plan, sys.argv[2], threads=2, progress=lambda *a: time.sleep(0.02))\n"
        "        os._exit(0)\n"
        "    print(pid, flush=True)\n"
        "    print(os.waitpid(pid, 0)[1], flush=True)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "recipe.yaml"), str(tmp_path / "out")]
    rng, out, kills, resumed = random.Random(0), tmp_path / "out", 0, 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        while kills < 20:
            parent.stdin.write("go\n")
            parent.stdin.flush()
            pid = int(parent.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.5))
            with contextlib.suppress(ProcessLookupError):  # it may just have finished
                os.kill(pid, signal.SIGKILL)
            killed = int(parent.stdout.readline()) == signal.SIGKILL
            kills += killed
            journal = partial_directory(out) / "journal.jsonl"
            resumed += killed and journal.exists() and len(journal.read_text().splitlines()) > 1
            if out.exists():
                assert digest(out) == digest(tmp_path / "whole")
                shutil.rmtree(out)
        parent.stdin.close()
    assert resumed >= 5  # else the moments were not spread over the merge
    if not out.exists():
        merge_to_directory(plan_merge(ties(triple)), out)
    assert digest(out) == digest(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_before_the_work_and_nothing_appears(triple: dict[str, Path], small_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"the disk is full; [\d,]+ bytes are needed"):
        merge_to_directory(plan_merge(ties(triple, out_dtype="float32")), small_disk / "out")
    assert not list(small_disk.iterdir())


def test_what_mergekit_is_asked_to_run_cannot_be_merged_in_memory(triple: dict[str, Path]) -> None:
    plan = plan_merge(ties(triple), engine="mergekit")
    with pytest.raises(MergetoolError, match="needs mergekit"):
        next(merge_tensors(plan))
