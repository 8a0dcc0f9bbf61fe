"""Every recipe that ships and names repositories is copied, checked and run through the stand-in, on small look-alikes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from mergetool.config.packaged import list_recipes, recipe_path
from tests.hub.program import Program
from tests.hub.server import StandIn
from tests.hub.store import OWNER
from tests.study import tiny

ON_THE_HUB = [
    (kind, name)
    for kind, name in list_recipes()
    if kind in ("merge", "align") and re.search(r": *[A-Z]\w+/\w", recipe_path(kind, name).read_text())
]
MODELS = ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B-Instruct")
PAIRS = "trl-lib/ultrafeedback_binarized"
SHORT = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "save_steps": 2}


@pytest.fixture(scope="module", autouse=True)
def look_alikes(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The repositories that recipes name: tiny models, and rows in the form that UltraFeedback has."""
    import pyarrow
    import pyarrow.parquet

    root = tiny.triple(tmp_path_factory.mktemp("models"))
    for name, folder in zip(MODELS, ("base", "sft"), strict=True):
        hub.store.add(name, root / folder, card={"license": "apache-2.0"})
    data = root / "pairs" / "data"
    data.mkdir(parents=True)
    for split, count in (("train", 24), ("test", 8)):
        rows = pyarrow.Table.from_pylist([pair(split, at) for at in range(count)])
        pyarrow.parquet.write_table(rows, data / f"{split}-00000-of-00001.parquet")
    files = [{"split": split, "path": f"data/{split}-*"} for split in ("train", "test")]
    block = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (root / "pairs" / "README.md").write_text(f"---\n{block}---\n")
    hub.store.add(PAIRS, root / "pairs", kind="datasets")


def pair(split: str, at: int) -> dict:
    """A row of UltraFeedback, binarized: two conversations that share the question, and their scores."""
    question = {"role": "user", "content": f"what is {at} in {split}"}
    answers = {side: [question, {"role": "assistant", "content": f"{side} {at}"}] for side in ("chosen", "rejected")}
    return {**answers, "score_chosen": 8.0, "score_rejected": 3.0}


def test_there_are_recipes_of_both_kinds() -> None:
    assert {kind for kind, _ in ON_THE_HUB} >= {"merge", "align"}


@pytest.mark.parametrize(("kind", "name"), ON_THE_HUB, ids=lambda value: value)
def test_a_recipe_is_copied_checked_and_opens_with_its_command(
    hub: StandIn, mergetool: Program, tmp_path: Path, kind: str, name: str
) -> None:
    assert f"mergetool {kind} recipes/{kind}/{name}.yaml" in recipe_path(kind, name).read_text().split("\n\n")[0]
    assert mergetool("recipes", "copy", f"{kind}/{name}", tmp_path).code == 0
    with hub.counted() as asked:
        result = mergetool("check", tmp_path / f"{name}.yaml", "--json")
    assert result.code == 0, result
    assert set(json.loads(result.out)["commits"]) == set(MODELS)
    assert sum(one.weights for one in asked) == 0


@pytest.mark.parametrize("name", [name for kind, name in ON_THE_HUB if kind == "merge"])
def test_a_merge_recipe_runs(mergetool: Program, tmp_path: Path, name: str) -> None:
    assert mergetool("recipes", "copy", f"merge/{name}", tmp_path).code == 0
    result = mergetool("merge", tmp_path / f"{name}.yaml", tmp_path / "out", "--low-disk")
    assert result.code == 0, result
    block = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])
    assert set(block["base_model"]) == set(MODELS)
    assert block["license"] == "apache-2.0"


@pytest.mark.slow
def test_an_align_recipe_trains_in_short_and_is_pushed(hub: StandIn, mergetool: Program, tmp_path: Path) -> None:
    recipe = yaml.safe_load(recipe_path("align", "qwen2.5-0.5b-dpo-onties").read_text())
    recipe["training"] = SHORT | {"use_cpu": True}
    recipe["data"] |= {"max_length": 64, "eval_limit": 4}
    recipe["merging"]["every"] = 1
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = mergetool("align", tmp_path / "recipe.yaml", tmp_path / "out")
    assert result.code == 0, result
    assert "24 usable" in result.err
    assert mergetool("push", tmp_path / "out", "me/aligned", token=OWNER).code == 0
    text = hub.store.repositories["models", "me/aligned"].tree()["README.md"].data.decode()
    block = yaml.safe_load(text.split("---")[1])
    assert block["base_model"] == ["Qwen/Qwen2.5-0.5B-Instruct"]
    assert block["base_model_relation"] == "finetune"
    assert block["datasets"] == [PAIRS]
    manifest = json.loads((tmp_path / "out" / "mergetool.json").read_text())
    assert manifest["inputs"][0]["revision"] == hub.store.repositories["models", MODELS[1]].refs["main"]
