"""A merge of models that each have rows of their own: the dense formula, what is refused, and what the result says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.activations import Calibration, calibrate
from mergetool.errors import CheckpointError, DataError, RecipeError
from mergetool.merge import merge, merge_recipe, merge_tensors, merge_to_directories, plan_merge
from mergetool.merge.obtained import obtain
from tests.activations.models import inputs_of
from tests.helpers import write_triple

TEXTS = {
    "sft": [" ".join(f"w{(7 * i + j * j) % 60}" for j in range(4 + i % 5)) for i in range(20)],
    "rlhf": [" ".join(f"w{(11 * i + 3 * j) % 30}" for j in range(5 + i % 3)) for i in range(20)],
}
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("rows")
    for name, texts in TEXTS.items():
        (folder / name).with_suffix(".jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {name: folder / f"{name}.jsonl" for name in TEXTS}


@pytest.fixture(scope="module")
def made(triple: dict[str, Path], rows: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Complete eigenpairs."""
    out = tmp_path_factory.mktemp("calibrations")
    for name, path in rows.items():
        calibrate(triple[name], path, out / name, rank=1000, energy=1.0)
    return {name: out / name for name in rows}


def recipe(triple: dict[str, Path], calibrations: Any, method: str = "regmean", **changes: Any) -> Any:
    models = [
        {"model": str(triple[name]), "calibration": str(one) if isinstance(one, Path) else one, "parameters": {"weight": w}}
        for (name, one), w in zip(calibrations.items(), (0.4, 1.6), strict=True)
    ]
    models = [{key: value for key, value in model.items() if value is not None} for model in models]
    return merge_recipe({"merge_method": method, "models": models, **changes})


def merged(*args: Any, threads: int = 2, **changes: Any) -> Weights:
    return dict(merge_tensors(plan_merge(recipe(*args, **changes)), threads=threads))


def test_every_map_is_the_dense_formula_on_the_models_own_inputs(triple: dict[str, Path], made: dict[str, Path]) -> None:
    """With second moments from hooks of the plainest kind, in fp64."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found, weights = merged(triple, made), {name: load_file(triple[name] / "model.safetensors") for name in TEXTS}
    live = {name: AutoModelForCausalLM.from_pretrained(triple[name], dtype=torch.float32).eval() for name in TEXTS}
    tokenizer = AutoTokenizer.from_pretrained(triple["sft"])
    ids = {name: [tokenizer(text)["input_ids"] for text in texts] for name, texts in TEXTS.items()}
    for module in ("model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj", "model.layers.2.mlp.up_proj"):
        name, above, below = f"{module}.weight", 0, 0
        for (model, one), w in zip(live.items(), (0.4, 1.6), strict=True):
            x = inputs_of(one, module, ids[model])
            c = x.T @ x / x.shape[0]
            c = w * (0.9 * c + 0.1 * torch.diag(c.diagonal()))
            above, below = above + weights[model][name].double() @ c, below + c
        expected = above @ torch.linalg.inv(below)
        assert (found[name].double() - expected).abs().max() < 1e-6 * expected.abs().max(), name
    gains = [live[n].model.norm.weight for n in TEXTS]
    assert not torch.allclose(found["model.norm.weight"], 0.2 * gains[0] + 0.8 * gains[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rank", [7, 1000])  # factors where 2 · 7 < 32, whole matrices else
def test_the_bytes_do_not_depend_on_threads_or_on_the_company_of_other_merges(
    triple: dict[str, Path], rows: dict[str, Path], tmp_path: Path, rank: int
) -> None:
    made = {name: {"data": str(path), "rank": rank, "energy": 1} for name, path in rows.items()}
    one, three = merged(triple, made, threads=1), merged(triple, made, threads=3)
    more = recipe(triple, made, parameters={"off_diagonal": 0.5})
    merge_to_directories([plan_merge(recipe(triple, made)), plan_merge(more)], [tmp_path / "a", tmp_path / "b"], threads=2)
    beside, other = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(one[name], three[name]) and torch.equal(one[name], beside[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_rows_make_the_calibrations_by_themselves_and_the_result_names_those_of_each_model(
    triple: dict[str, Path], rows: dict[str, Path], tmp_path: Path
) -> None:
    asked = {name: {"data": str(path), "rank": 8} for name, path in rows.items()}
    manifest = merge(recipe(triple, asked), tmp_path / "out")
    facts = {place.rpartition("/")[2]: one for place, one in manifest["calibrations"].items()}
    assert {name: one["rows"]["sources"] for name, one in facts.items()} == {n: [f"{n}.jsonl"] for n in TEXTS}
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("calibrated on 20 rows") == 2
    assert "`sft.jsonl`" in card
    assert "calibration" not in manifest
    assert manifest["recipe"]["models"][0]["calibration"]["rank"] == 8
    written = (tmp_path / "out" / "mergetool.json").stat().st_mtime_ns
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(rows["sft"].read_bytes())
    merge(recipe(triple, {**asked, "sft": {"data": str(moved), "rank": 8}}), tmp_path / "out")
    assert (tmp_path / "out" / "mergetool.json").stat().st_mtime_ns == written  # the same rows elsewhere: the same merge


def test_paths_beside_the_recipe_are_found(triple: dict[str, Path], rows: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(rows["sft"].read_bytes())
    models = [{"model": str(triple[name]), "calibration": {"data": "rows.jsonl", "limit": 4}} for name in TEXTS]
    read = merge_recipe({"merge_method": "regmean", "models": models}, tmp_path)
    assert read.models[0].calibration is not None
    assert read.models[0].calibration.data == [str(tmp_path / "rows.jsonl")]
    assert len(obtain(plan_merge(read)).of_models) == 2


def test_tensors_that_a_calibration_lacks_are_the_weighted_mean_and_the_plan_says_how_many(
    triple: dict[str, Path], made: dict[str, Path], tmp_path: Path
) -> None:
    opened = Calibration.load(made["sft"])
    lacking = Calibration(
        opened.facts, opened.sites, {n: t for n, t in opened.tensors.items() if "layers.1." not in n}, opened._read
    )
    lacking.save(tmp_path / "lacking")
    asked = {**made, "sft": tmp_path / "lacking"}
    plan = plan_merge(recipe(triple, asked))
    assert [note for note in plan.notes if note.startswith("9 of 29 tensors are in no calibration or not in all")]
    found, whole, plain = merged(triple, asked), merged(triple, made), merged(triple, dict.fromkeys(TEXTS), method="linear")
    for name in found:
        assert torch.equal(found[name], (plain if "layers.1." in name else whole)[name]), name
    manifest = merge(recipe(triple, asked), tmp_path / "out")
    assert sum("in no calibration" in line for line in manifest["warnings"]) == 1


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"calibrations": {"sft": None}}, RecipeError, r"models\[0\] has no calibration"),
        ({"method": "linear"}, RecipeError, r"models\[0\]\.calibration has no meaning for linear"),
        ({"calibration": {"data": "rows.jsonl"}}, RecipeError, "calibration has no meaning for regmean"),
        ({"calibrations": {"rlhf": "nowhere.safetensors"}}, CheckpointError, "no such calibration"),
        ({"calibrations": {"rlhf": {"data": "nowhere.jsonl"}}}, DataError, "nowhere.jsonl"),
        ({"parameters": {"off_diagonal": 1.2}}, RecipeError, "off_diagonal"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_weights_are_read(
    triple: dict[str, Path], made: dict[str, Path], change: dict, kind: type[Exception], message: str
) -> None:
    asked = {**made, **change.pop("calibrations", {})}
    with pytest.raises(kind, match=message):
        plan_merge(recipe(triple, asked, **change))


def test_slices_are_refused(triple: dict[str, Path], made: dict[str, Path]) -> None:
    sources = [{"model": str(triple[n]), "layer_range": [0, 2], "calibration": str(made[n])} for n in TEXTS]
    with pytest.raises(RecipeError, match="a calibration is of a whole model"):
        plan_merge(merge_recipe({"merge_method": "regmean", "slices": [{"sources": sources}]}))
    whole = [{**source, "layer_range": [0, 3]} for source in sources]
    plan_merge(merge_recipe({"merge_method": "regmean", "slices": [{"sources": whole}]}))  # says the same as whole models


def test_anothers_calibration_is_refused_and_leaves_nothing(
    triple: dict[str, Path], made: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="is a calibration of rlhf, not of"):
        merge(recipe(triple, {"sft": made["rlhf"], "rlhf": made["rlhf"]}), tmp_path / "out")
    assert not [p for p in tmp_path.iterdir() if "out" in p.name]
    wide = write_triple(tmp_path / "wide", hidden_size=64)
    with pytest.raises(CheckpointError, match="does not fit"):
        plan_merge(recipe(wide, made))


def test_other_rows_are_another_merge(
    triple: dict[str, Path], rows: dict[str, Path], made: dict[str, Path], tmp_path: Path
) -> None:
    from mergetool.merge.inputs import plan_of

    calibrate(triple["sft"], rows["rlhf"], tmp_path / "other")
    before = plan_of(plan_merge(recipe(triple, made)))
    assert plan_of(plan_merge(recipe(triple, {**made, "sft": tmp_path / "other"}))) != before
