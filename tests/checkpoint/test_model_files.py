"""A result has every file that its loader needs, says what it was not given, and no link leads out of a checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mergetool.checkpoint.model_files import beside, left_behind, remote_code
from mergetool.checkpoint.place import Directory
from mergetool.errors import CheckpointError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint

CARRIED = (
    "modeling_my.py", "configuration_my.py", "modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors",
    "sentence_bert_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "images/plot.png",
    "LICENSE", "my_own_settings.json", "notes.txt",
)  # fmt: skip
TOKENIZER = ("tekken.json", "tiktoken.model", "other.tiktoken", "additional_chat_templates/tool_use.jinja", "vocab.txt")
LEFT = (
    "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json", "training_args.bin", "zero_to_fp32.py",
    "global_step10/mp_rank_00_model_states.pt", "checkpoint-5/config.json", "runs/events.out", "original/consolidated.00.pth",
    "consolidated.safetensors", "model-Q4_K_M.gguf", "onnx/model.onnx", "pytorch_model.bin", "tf_model.h5",
    "flax_model.msgpack",
)  # fmt: skip
NEITHER = (
    "README.md",
    ".gitattributes",
    "mergetool.json",
    "quantize_config.json",
    ".cache/x",
    "__pycache__/a.pyc",
    "mergekit_config.yml",
)


def model(directory: Path, seed: int = 0) -> Path:
    return write_checkpoint(directory, random_weights(seed))


def put(directory: Path, *names: str) -> None:
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("{}")
    if (directory / "modules.json").exists():
        modules = [{"idx": 0, "path": ""}, {"idx": 1, "path": "1_Pooling"}, {"idx": 2, "path": "2_Dense"}]
        (directory / "modules.json").write_text(json.dumps(modules))


def merge(tmp_path: Path, **also: object) -> dict:
    models = [{"model": str(tmp_path / name), "parameters": {"weight": 0.5}} for name in "ab"]
    return merge_to_directory(
        plan_merge(MergeRecipe.model_validate({"merge_method": "linear", "models": models, **also})), tmp_path / "out"
    )


def files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_a_result_has_what_a_loader_needs_and_says_what_it_has_not(tmp_path: Path) -> None:
    a, _ = model(tmp_path / "a"), model(tmp_path / "b", 1)
    put(a, *CARRIED, *TOKENIZER, *LEFT, *NEITHER)
    manifest = merge(tmp_path)
    found = files(tmp_path / "out")
    assert set(CARRIED) | set(TOKENIZER) <= found
    assert not set(LEFT) & found
    said = " ".join(manifest["warnings"])
    assert "optimizer.pt" in said
    assert "weights" in said
    assert set(beside(Directory(a)).left) == set(LEFT)
    assert not any(name in " ".join(left_behind(beside(Directory(a)))) for name in NEITHER)


def test_the_tokenizer_files_are_those_of_the_model_whose_tokenizer_it_is(tmp_path: Path) -> None:
    a, b = model(tmp_path / "a"), model(tmp_path / "b", 1)
    put(a, "merges.txt", "additional_chat_templates/a.jinja")
    put(b, "added_tokens.json", "additional_chat_templates/b.jinja", "modeling_b.py")
    merge(tmp_path, tokenizer_source=str(b))
    found = files(tmp_path / "out")
    assert {"added_tokens.json", "additional_chat_templates/b.jinja"} <= found
    assert not {"merges.txt", "additional_chat_templates/a.jinja", "modeling_b.py"} & found


REMOTE = "configuration_my.py", "modeling_my.py"


def test_remote_code_is_carried_loads_and_is_said_in_the_manifest_and_on_the_card(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    for seed, name in enumerate("ab"):
        place = model(tmp_path / name, seed)
        mark = "open(__file__ + '.ran', 'w').close()\n"
        (place / REMOTE[0]).write_text(
            mark + "from transformers import LlamaConfig\nclass MyConfig(LlamaConfig):\n    model_type = 'my'\n"
        )
        (place / REMOTE[1]).write_text(
            mark + "from transformers import LlamaForCausalLM\nfrom .configuration_my import MyConfig\n"
            "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
        )
        config = json.loads((place / "config.json").read_text())
        mapped = {"AutoConfig": "configuration_my.MyConfig", "AutoModelForCausalLM": "modeling_my.MyModel"}
        config |= {"model_type": "my", "architectures": ["MyModel"], "auto_map": mapped}
        (place / "config.json").write_text(json.dumps(config))
    manifest = merge(tmp_path)
    assert manifest["trust_remote_code"] == list(REMOTE)
    assert any("trust_remote_code" in line for line in manifest["warnings"])
    assert "trust_remote_code=True" in (tmp_path / "out" / "README.md").read_text()
    assert not list(tmp_path.rglob("*.ran"))
    AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True)


def test_code_of_another_repository_is_named_by_it(tmp_path: Path) -> None:
    place = model(tmp_path / "a")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "org/name--configuration_x.X"}}))
    assert remote_code(Directory(place)) == ["org/name"]


@pytest.mark.parametrize(
    "file", ["tokenizer.json", "tokenizer_config.json", "modules.json", "1_Pooling/config.json", "generation_config.json"]
)
def test_a_truncated_json_file_is_an_error_before_anything_is_written(tmp_path: Path, file: str) -> None:
    a, _ = model(tmp_path / "a"), model(tmp_path / "b", 1)
    put(a, "1_Pooling/config.json")
    (a / file).write_text('{"a": [1, 2')
    with pytest.raises(CheckpointError, match=file) as caught:
        merge(tmp_path)
    assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("file", ["tokenizer.json", "modules.json", "generation_config.json"])
def test_a_pipe_in_place_of_a_file_is_an_error_and_nobody_waits_for_it(tmp_path: Path, file: str) -> None:
    a, _ = model(tmp_path / "a"), model(tmp_path / "b", 1)
    (a / file).unlink(missing_ok=True)
    os.mkfifo(a / file)
    with pytest.raises((CheckpointError, OSError), match="pipe"):
        merge(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_link_to_nothing_is_an_error(tmp_path: Path) -> None:
    a, _ = model(tmp_path / "a"), model(tmp_path / "b", 1)
    (a / "modeling_my.py").symlink_to(tmp_path / "nowhere.py")
    with pytest.raises(CheckpointError, match=r"modeling_my\.py: is a link to nothing"):
        merge(tmp_path)


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_link_out_of_the_directory_leads_to_is_not_carried(tmp_path: Path, folder: bool) -> None:
    a, _ = model(tmp_path / "a"), model(tmp_path / "b", 1)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.txt").write_text("secret")
    (a / "notes").symlink_to(tmp_path / "private" if folder else tmp_path / "private" / "key.txt")
    manifest = merge(tmp_path)
    assert not any("notes" in name for name in files(tmp_path / "out"))
    assert any("out of the directory" in line and "notes" in line for line in manifest["warnings"])


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer.model"])
def test_a_tokenizer_that_is_a_link_out_of_the_directory_is_an_error(tmp_path: Path, file: str) -> None:
    a, _ = model(tmp_path / "a"), model(tmp_path / "b", 1)
    (a / file).unlink(missing_ok=True)
    (a / file).symlink_to(tmp_path / "b" / "tokenizer.json")
    with pytest.raises(CheckpointError, match="link out"):
        merge(tmp_path)


def test_the_hub_caches_own_links_to_its_blobs_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "models--org--name"
    place, _ = model(root / "snapshots" / "0123"), model(tmp_path / "b", 1)
    (root / "blobs").mkdir()
    put(place, "modeling_my.py", "1_Pooling/config.json")
    for i, name in enumerate(sorted(files(place))):
        (place / name).rename(root / "blobs" / str(i))
        (place / name).symlink_to(root / "blobs" / str(i))
    (tmp_path / "a").symlink_to(place)
    merge(tmp_path)
    assert {"modeling_my.py", "1_Pooling/config.json", "tokenizer.json"} <= files(tmp_path / "out")
