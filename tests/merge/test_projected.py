"""null_space offline: the dense formula, the optimizer's own last step, any threads, experts on disk one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.activations import Calibration, calibrate, measure
from mergetool.errors import CheckpointError, DataError, RecipeError
from mergetool.merge import merge, merge_recipe, merge_tensors, plan_merge
from mergetool.merge.plan import TensorPlan
from mergetool.merge.projected import Projections
from mergetool.ops.projection import Rule
from mergetool.optim import OnNullSpace
from tests.activations.models import CONFIGS, inputs_of, live, sequences
from tests.helpers import random_weights, write_triple

TEXTS = [" ".join(f"w{(7 * i + j * j) % 60}" for j in range(3 + i % 5)) for i in range(24)]
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def made(triple: dict[str, Path], rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibration") / "c.safetensors"
    calibrate(triple["sft"], rows, out, rank=1000, energy=1.0)
    return out


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGETOOL_CACHE", str(tmp_path / "cache"))


def recipe(triple: dict[str, Path], calibration: Any, method: str = "null_space", weight: float = 1.0, **more: Any) -> Any:
    one = {"model": str(triple["rlhf"]), "parameters": {"weight": weight, **more}}
    content = {"merge_method": method, "base_model": str(triple["sft"]), "models": [one], "calibration": calibration}
    return merge_recipe({key: value for key, value in content.items() if value is not None})


def merged(*args: Any, threads: int = 2, **more: Any) -> Weights:
    return dict(merge_tensors(plan_merge(recipe(*args, **more)), threads=threads))


@pytest.mark.parametrize("weight", [0.5, 1.0, 1.4])
@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_soft_is_the_resolvent_of_the_second_moment(
    triple: dict[str, Path], made: Path, rows: Path, strength: float, weight: float
) -> None:
    """θ_s + w·Δ·ℓ(C + ℓI)⁻¹, with C from hooks of the plainest kind."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(triple["sft"], dtype=torch.float32).eval()
    ids = [AutoTokenizer.from_pretrained(triple["sft"])(text)["input_ids"] for text in TEXTS]
    sft, rlhf = (load_file(triple[name] / "model.safetensors") for name in ("sft", "rlhf"))
    found = merged(triple, str(made), weight=weight, strength=strength)
    for module in ("model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj", "model.layers.2.mlp.up_proj"):
        x, name = inputs_of(model, module, ids), f"{module}.weight"
        c = x.T @ x / x.shape[0]
        floor = strength * c.trace() / c.shape[0]
        delta = (rlhf[name].double() - sft[name].double()) @ (floor * torch.linalg.inv(c + floor * torch.eye(len(c))))
        expected = sft[name].double() + weight * delta
        assert (found[name].double() - expected).abs().max() < 1e-6 * expected.abs().max(), name


def test_a_run_that_projects_once_at_its_end_is_the_offline_merge_bit_for_bit(
    triple: dict[str, Path], made: Path, tmp_path: Path
) -> None:
    from tests.helpers import write_checkpoint

    def trained(make: Any) -> Weights:
        params = [(n, torch.nn.Parameter(w.clone())) for n, w in load_file(triple["sft"] / "model.safetensors").items()]
        optimizer, rng = make(params), torch.Generator().manual_seed(5)
        for _ in range(4):
            for _, p in params:
                p.grad = torch.randn(p.shape, generator=rng)
            optimizer.step()
        return {n: p.detach() for n, p in params}

    adamw = trained(lambda ps: torch.optim.AdamW([p for _, p in ps], lr=1e-3, weight_decay=0.0, fused=True))
    online = trained(lambda ps: OnNullSpace(ps, 1e-3, calibration=made, strength=2.0, every=4))
    places = {"sft": triple["sft"], "rlhf": write_checkpoint(tmp_path / "adamw", adamw)}
    offline = merged(places, str(made), strength=2.0)
    assert any(not torch.equal(online[name], adamw[name]) for name in adamw)
    for name, tensor in offline.items():
        assert torch.equal(tensor, online[name]), name


def test_hard_takes_the_outputs_of_the_kept_span_back_and_taking_twice_changes_nothing(
    triple: dict[str, Path], made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "once"
    merge(recipe(triple, str(made), kind="hard", rank=6), out)
    once, sft = load_file(out / "model.safetensors"), load_file(triple["sft"] / "model.safetensors")
    opened, name = Calibration.load(made), "model.layers.1.mlp.down_proj.weight"
    vectors = opened.moments(opened.tensors[name].columns[0] or "").vectors
    assert vectors is not None
    assert ((once[name] - sft[name]) @ vectors[:, :6]).abs().max() < 1e-6
    assert (once[name] - sft[name]).abs().max() > 1e-3
    twice = merged({"sft": triple["sft"], "rlhf": out}, str(made), kind="hard", rank=6)
    assert all((twice[name] - once[name]).abs().max() < 1e-6 for name in once)


@pytest.mark.parametrize(("method", "more"), [("null_space_ties", {"density": 1.0}), ("null_space_dare", {"density": 1.0})])
def test_projected_and_nothing_dropped_is_null_space(triple: dict[str, Path], made: Path, method: str, more: dict) -> None:
    plain, combined = merged(triple, str(made), strength=3), merged(triple, str(made), method, strength=3, **more)
    assert all((combined[name] - plain[name]).abs().max() < 1e-6 for name in plain)


def test_ties_keeps_the_largest_of_what_is_left_after_projection(triple: dict[str, Path], made: Path) -> None:
    sft = load_file(triple["sft"] / "model.safetensors")
    whole = merged(triple, str(made), strength=0.3)
    some = merged(triple, str(made), "null_space_ties", strength=0.3, density=0.25)
    for name, start in sft.items():
        delta = whole[name] - start
        kept = delta.flatten().abs().topk(max(1, int(0.25 * delta.numel()))).indices
        expected = torch.zeros(delta.numel())
        expected[kept] = delta.flatten()[kept]
        assert (some[name] - start - expected.view(start.shape)).abs().max() < 1e-6, name


def test_the_bytes_do_not_depend_on_threads_or_on_the_company_of_other_merges(
    triple: dict[str, Path], made: Path, tmp_path: Path
) -> None:
    from mergetool.merge import merge_to_directories

    one, three = merged(triple, str(made), threads=1, strength=1), merged(triple, str(made), threads=3, strength=1)
    plans = [plan_merge(recipe(triple, str(made), strength=value)) for value in (1, 30)]
    merge_to_directories(plans, [tmp_path / "a", tmp_path / "b"], threads=2)
    beside = load_file(tmp_path / "a" / "model.safetensors")
    assert all(torch.equal(one[name], three[name]) and torch.equal(one[name], beside[name]) for name in one)


def test_rows_make_the_calibration_by_themselves_once_and_the_result_names_them(
    triple: dict[str, Path], rows: Path, tmp_path: Path
) -> None:
    asked = {"data": str(rows), "rank": 8}
    manifest = merge(recipe(triple, asked, strength=3), tmp_path / "out")
    kept = list((tmp_path / "cache" / "calibrations").glob("*.safetensors"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert manifest["calibration"]["rows"]["rows"] == len(TEXTS)
    assert "Calibrated on 24 rows" in (tmp_path / "out" / "README.md").read_text()
    assert "strength: 3" in (tmp_path / "out" / "README.md").read_text()
    again = merged(triple, str(kept[0]), strength=3)
    assert all(torch.equal(tensor, again[name]) for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items())
    moved = tmp_path / "moved.jsonl"
    moved.write_bytes(rows.read_bytes())
    written = (tmp_path / "out" / "mergetool.json").stat().st_mtime_ns
    merge(recipe(triple, {"data": str(moved), "rank": 8}, strength=3), tmp_path / "out")
    assert (tmp_path / "out" / "mergetool.json").stat().st_mtime_ns == written  # the same rows elsewhere: the same merge
    assert kept[0].stat().st_mtime_ns == before


@pytest.mark.parametrize("family", ["qwen3_moe"])
def test_experts_on_disk_one_by_one_get_their_own_projection(family: str, tmp_path: Path) -> None:
    from mergetool.checkpoint.open import layout_of
    from mergetool.checkpoint.place import Directory

    model = live(family)
    model.save_pretrained(tmp_path / "moe")
    found = measure(model, sequences(), rank=1000, energy=1.0)
    layout, rule = layout_of(Directory(tmp_path / "moe")), Rule(strength=0.5)
    disk = Projections(found, layout)
    one = "model.layers.1.mlp.experts.2.down_proj.weight"
    assert one in layout.tensors
    assert one not in found
    shape = layout.tensors[one].shape
    got = disk.projector(TensorPlan(one, shape, 1, "F32", True, 0, ()), rule)
    weight = "model.layers.1.mlp.experts.down_proj"
    whole = found.projector(weight, found.tensors[weight].shape, rule)
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    stack = torch.zeros(found.tensors[weight].shape)
    stack[2] = delta
    expected = whole.project_(stack.view(-1, whole.width)).view(stack.shape)[2]
    assert torch.equal(got.project_(delta.clone()), expected)
    assert not torch.equal(expected, delta)
    assert CONFIGS[family]().num_experts > 2


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"calibration": None}, RecipeError, "needs to know what should stay"),
        ({"method": "task_arithmetic"}, RecipeError, "calibration has no meaning for task_arithmetic"),
        ({"calibration": "nowhere.safetensors"}, CheckpointError, "no such calibration"),
        ({"calibration": {"data": "nowhere.jsonl"}}, DataError, "nowhere.jsonl"),
        ({"calibration": {"data": "rows.jsonl", "file": "c.safetensors"}}, RecipeError, "calibration"),
        ({"kind": "hard"}, RecipeError, "kind hard has no limit"),
        ({"rank": 4}, RecipeError, "rank is 4 and kind is soft"),
        ({"strength": 0}, RecipeError, "it must be above 0"),
    ],
)
def test_what_cannot_be_projected_is_refused_before_weights_are_read(
    triple: dict[str, Path], made: Path, change: dict, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        plan_merge(recipe(triple, change.pop("calibration", str(made)), **change))


def test_a_calibration_of_another_model_is_refused_and_leaves_nothing(
    triple: dict[str, Path], rows: Path, made: Path, tmp_path: Path
) -> None:
    of_rlhf = tmp_path / "other.safetensors"
    calibrate(triple["rlhf"], rows, of_rlhf, rank=4)
    with pytest.raises(CheckpointError, match="is a calibration of rlhf, not of"):
        merge(recipe(triple, str(of_rlhf)), tmp_path / "out")
    assert not [p for p in tmp_path.iterdir() if p.name.startswith((".out", "out"))]
    wide = write_triple(tmp_path / "wide", hidden_size=64)
    with pytest.raises(CheckpointError, match="does not fit"):
        plan_merge(recipe(wide, str(made)))
    assert random_weights(0)
