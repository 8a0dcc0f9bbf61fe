"""Recipes that name Hub repositories work as those that name directories, and errors come before weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helpers import random_weights, write_checkpoint
from tests.hub.program import Program, Result
from tests.hub.server import Asked, Fault, StandIn
from tests.hub.store import OTHER, OWNER

WEIGHTS = r"^GET .*\.safetensors"
STEP = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def models(hub: StandIn, triple: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """lab/base, lab/sft, lab/rlhf, and some that cannot be used."""
    root = tmp_path_factory.mktemp("models")
    for name, path in triple.items():
        hub.store.add(f"lab/{name}", path, card={"license": "apache-2.0"})
    hub.store.add("lab/wide", write_checkpoint(root / "wide", random_weights(5, hidden_size=64), hidden_size=64))
    hub.store.add("lab/secret", triple["rlhf"], private=True)
    hub.store.add("lab/gated", triple["rlhf"], gated=True)
    sharded = write_checkpoint(root / "sharded", random_weights(1), shards=3)
    hub.store.add("lab/sharded", sharded)
    (sharded / "model-00002-of-00003.safetensors").unlink()
    hub.store.add("lab/lacking", sharded)
    return triple


@pytest.fixture
def big(hub: StandIn, tmp_path: Path) -> int:
    """lab/big has a shard of 50 MB; returns its size in bytes."""
    weights = random_weights(0, num_hidden_layers=1, hidden_size=512, vocab_size=25_000)
    shard = write_checkpoint(tmp_path / "big", weights, num_hidden_layers=1, hidden_size=512, vocab_size=25_000)
    hub.store.add("lab/big", shard)
    return (shard / "model.safetensors").stat().st_size


@pytest.fixture
def recipe(models: dict[str, Path], tmp_path: Path) -> Path:
    return save(tmp_path / "recipe.yaml")


@pytest.fixture(autouse=True)
def empty_cache(mergetool: Program) -> None:
    shutil.rmtree(mergetool.home / "hub", ignore_errors=True)


def save(path: Path, **changes: object) -> Path:
    entries = [{"model": changes.pop(m, f"lab/{m}"), "parameters": {"weight": 0.5, "density": 0.5}} for m in ("sft", "rlhf")]
    path.write_text(yaml.safe_dump({"merge_method": "ties", "base_model": "lab/base", "models": entries, **changes}))
    return path


def refused(result: Result, asked: list[Asked]) -> str:
    """Exit 2, one line, and not a byte of weights."""
    assert result.code == 2, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert sum(one.weights for one in asked) == 0
    assert ";" in result.line, "no next step"
    return result.line


def test_a_merge_of_repositories_has_the_bytes_of_a_merge_of_directories(
    hub: StandIn, mergetool: Program, models: dict[str, Path], recipe: Path, tmp_path: Path
) -> None:
    with hub.counted() as asked:
        assert mergetool("check", recipe).code == 0
    assert sum(one.weights for one in asked) == 0
    with hub.counted() as asked:
        assert mergetool("merge", recipe, tmp_path / "out").code == 0
    files = [
        one.path.rpartition("/")[2] for one in asked if one.method == "GET" and "/resolve/" in one.path if one.status == 200
    ]
    assert files.count("model.safetensors") == 3  # each once, and only what a merge needs
    assert set(files) <= {
        "config.json",
        "model.safetensors",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    local = save(tmp_path / "local.yaml", **{m: str(models[m]) for m in ("sft", "rlhf")}, base_model=str(models["base"]))
    assert mergetool("merge", local, tmp_path / "local").code == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    manifest = json.loads((tmp_path / "out" / "mergetool.json").read_text())
    assert [one["revision"] for one in manifest["inputs"]] == [
        hub.store.repositories["models", f"lab/{name}"].refs["main"] for name in ("base", "sft", "rlhf")
    ]


def test_an_adapter_of_the_hub_is_read_on_top_of_a_model_of_the_hub(
    hub: StandIn, mergetool: Program, models: dict[str, Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "lora_alpha": 4, "r": 2}))
    place = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{place}.lora_A.weight": torch.ones(2, 32), f"{place}.lora_B.weight": torch.ones(32, 2)}
    save_file(factors, folder / "adapter_model.safetensors")
    hub.store.add("lab/adapter", folder)
    remote = save(tmp_path / "remote.yaml", rlhf="lab/sft+lab/adapter")
    with hub.counted() as asked:
        assert mergetool("check", remote).code == 0
    assert sum(one.weights for one in asked) == 0
    assert mergetool("merge", remote, tmp_path / "out").code == 0
    paths = {m: str(models[m]) for m in ("base", "sft")}
    local = save(tmp_path / "l.yaml", base_model=paths["base"], sft=paths["sft"], rlhf=f"{paths['sft']}+{folder}")
    assert mergetool("merge", local, tmp_path / "local").code == 0
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "local/model.safetensors").read_bytes()
    card = (tmp_path / "out/README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == ["lab/base", "lab/sft", "lab/adapter"]
    assert "is an adapter, not a model" in mergetool("check", save(tmp_path / "a.yaml", rlhf="lab/adapter")).line


def test_a_revision_is_read_and_what_moves_meanwhile_is_not(
    hub: StandIn, mergetool: Program, models: dict[str, Path], tmp_path: Path
) -> None:
    moving = hub.store.add("lab/moving", models["sft"])
    first = moving.refs["main"]
    moving.commit(dict(hub.store.repositories["models", "lab/wide"].tree()))
    at_first = save(tmp_path / "first.yaml", sft=f"lab/moving@{first}")
    assert mergetool("check", at_first).code == 0
    assert "has shape" in mergetool("check", save(tmp_path / "main.yaml", sft="lab/moving")).line
    # the owner pushes between the check and the fetch: the run goes on with the commit that it has checked
    moving.refs["main"] = first
    main = save(tmp_path / "moved.yaml", sft="lab/moving")
    hub.watch = lambda path, size: moving.refs.update(main=hub.store.repositories["models", "lab/wide"].refs["main"])
    try:
        assert mergetool("merge", main, tmp_path / "out").code == 0
    finally:
        hub.watch = None
    manifest = json.loads((tmp_path / "out" / "mergetool.json").read_text())
    assert manifest["inputs"][1]["revision"] == first


@pytest.mark.parametrize(
    ("changes", "token", "said"),
    [
        ({"sft": "lab/nothing"}, None, "no such repository"),
        ({"sft": "lab/nothing"}, OTHER, "no such repository"),
        ({"sft": "lab/sft@nothing"}, None, "no such revision"),
        ({"sft": "lab/secret"}, OTHER, "or a private one"),
        ({"sft": "lab/gated"}, None, "gated"),
        ({"sft": "lab/sft"}, "hf_" + "Wrong" * 7, "does not accept the token"),
        ({"sft": "lab/wide"}, None, "has shape"),
        ({"sft": "lab/lacking"}, None, "model-00002-of-00003.safetensors"),
        ({"merge_method": "tise"}, None, "did you mean 'ties'"),
        ({"merge_method": "model_stock", "sft": "lab/nothing"}, None, "no such repository"),
        ({"sft": "lab/sft:x"}, None, "lab/sft:x"),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else "-".join(map(str, value.values())),
)
def test_a_recipe_that_cannot_work_ends_before_any_weights(
    hub: StandIn, mergetool: Program, models: dict[str, Path], tmp_path: Path, changes: dict, token: str | None, said: str
) -> None:
    recipe = save(tmp_path / "recipe.yaml", **changes)
    for command in (["check", recipe], ["merge", recipe, tmp_path / "out"]):
        with hub.counted() as asked:
            assert said in refused(mergetool(*command, token=token), asked)
    assert not list(tmp_path.glob("*out*"))


def test_the_owner_reads_what_is_private_or_gated(mergetool: Program, models: dict[str, Path], tmp_path: Path) -> None:
    recipe = save(tmp_path / "recipe.yaml", sft="lab/secret", rlhf="lab/gated")
    assert mergetool("merge", recipe, tmp_path / "out", token=OWNER).code == 0


def test_a_busy_hub_is_waited_for_as_long_as_it_asks(hub: StandIn, mergetool: Program, recipe: Path) -> None:
    with hub.counted() as asked:
        hub.faults.append(Fault(r"/api/models/lab/base", "busy", after=1))
        hub.faults.append(Fault(r"GET .*lab/sft/resolve/.*safetensors", "busy", after=1))
        assert mergetool("check", recipe).code == 0
    assert [one.status for one in asked].count(429) == 2
    with hub.counted() as asked:
        hub.faults.append(Fault(r"/api/models/lab/base", "busy", after=3600, times=9))
        line = refused(mergetool("check", recipe), asked)
    assert "too many requests" in line
    assert "in 3600 seconds" in line


def test_a_connection_that_drops_is_taken_up_where_it_stopped(hub: StandIn, mergetool: Program, big: int) -> None:
    """The client saves what has come in steps of 10 MiB."""
    with hub.counted() as asked:
        hub.faults += [Fault(WEIGHTS, "none", times=2), Fault(WEIGHTS, "cut", after=25_000_000)]  # its header is read in two
        assert mergetool("inspect", "lab/big").code == 0
    assert whole(asked) == [25_000_000, big - 2 * STEP]


def test_a_fetch_that_fails_is_one_line_and_the_next_run_fetches_what_is_missing(
    hub: StandIn, mergetool: Program, models: dict[str, Path]
) -> None:
    with hub.counted() as asked:
        hub.faults += [Fault(r"^GET .*00002-of-00003.safetensors$", "broken", times=9)]  # the file; its header is a part
        result = mergetool("inspect", "lab/sharded")
    assert result.code == 2
    assert "lab/sharded/model-00002-of-00003.safetensors: the Hub answers 500" in result.line
    assert len(whole(asked)) == 2
    with hub.counted() as asked:
        assert mergetool("inspect", "lab/sharded").code == 0
    assert ["00002-of-00003" in one.path for one in asked if one.weights] == [True]


def whole(asked: list[Asked]) -> list[int]:
    """Bytes sent of weight files, without the reads of headers."""
    return [one.sent for one in asked if one.method == "GET" and one.weights]


def test_pickled_repositories_are_refused_unless_asked_for(
    hub: StandIn, mergetool: Program, models: dict[str, Path], tmp_path: Path
) -> None:
    import torch

    folder = tmp_path / "pickled"
    shutil.copytree(models["sft"], folder)
    (folder / "model.safetensors").unlink()
    torch.save(random_weights(1, near=random_weights(0)), folder / "pytorch_model.bin")
    hub.store.add("lab/pickled", folder)
    recipe = save(tmp_path / "recipe.yaml", sft="lab/pickled")
    with hub.counted() as asked:
        assert "--allow-pickle" in refused(mergetool("merge", recipe, tmp_path / "out"), asked)
    assert mergetool("merge", recipe, tmp_path / "out", "--allow-pickle").code == 0
    assert mergetool("merge", save(tmp_path / "safe.yaml"), tmp_path / "safe").code == 0
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "safe/model.safetensors").read_bytes()


def test_code_in_a_repository_is_not_run(hub: StandIn, mergetool: Program, models: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "own-code"
    shutil.copytree(models["sft"], folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    hub.store.add("lab/own", folder)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "w1", "completion": "w2"}) + "\n")
    result = mergetool("evaluate", "lab/own", "--tax", tmp_path / "rows.jsonl")
    assert result.code == 2, result.err
    assert not (tmp_path / "ran").exists()


def test_inspect_and_evaluate_take_repositories(
    hub: StandIn, mergetool: Program, models: dict[str, Path], tmp_path: Path
) -> None:
    assert "29 tensors" in mergetool("inspect", "lab/sft", "--base", "lab/base").out
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "w1 w2", "completion": "w3"}) + "\n")
    result = mergetool("evaluate", "lab/sft@main", "--tax", tmp_path / "rows.jsonl", "--tasks", "nll", "--json")
    assert json.loads(result.out)["scores"]["rows.nll"]["n"] == 1


def test_what_is_in_the_cache_is_enough_without_the_network(
    hub: StandIn, mergetool: Program, models: dict[str, Path], recipe: Path, tmp_path: Path
) -> None:
    assert mergetool("merge", recipe, tmp_path / "out").code == 0
    offline = Program(hub.url, mergetool.home, tmp_path, HF_HUB_OFFLINE="1")
    try:
        with hub.counted() as asked:
            assert offline("merge", recipe, tmp_path / "again").code == 0
            line = offline("check", save(tmp_path / "other.yaml", sft="lab/wide")).line
        assert not asked
    finally:
        offline.close()
    assert "HF_HUB_OFFLINE" in line
    assert (tmp_path / "out/model.safetensors").read_bytes() == (tmp_path / "again/model.safetensors").read_bytes()
