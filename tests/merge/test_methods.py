"""Every method against an independent reference, and the theorems of offline merging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mergetool.merge import METHODS, MergeRecipe, merge_tensors, merge_to_directory, plan_merge
from tests.helpers import random_weights, write_checkpoint, write_triple

NEEDS = {
    "linear": {}, "task_arithmetic": {}, "dare_linear": {"density": 0.5}, "dare_ties": {"density": 0.5},
    "ties": {"density": 0.5}, "slerp": {"t": 0.4}, "breadcrumbs": {"density": 0.5, "gamma": 0.05},
    "breadcrumbs_ties": {"density": 0.5}, "della": {"density": 0.5}, "della_linear": {"density": 0.5, "epsilon": 0.2},
    "null_space": {"strength": 2.0}, "null_space_dare": {"density": 0.5, "strength": 2.0},
    "null_space_ties": {"density": 0.5, "kind": "hard", "rank": 9},
    "nuslerp": {}, "multislerp": {}, "karcher": {}, "model_stock": {}, "sce": {"select_topk": 0.5}, "ram": {},
    "ramplus_tl": {}, "nearswap": {"t": 0.01}, "arcee_fusion": {}, "passthrough": {"scale": 1.0},
    "regmean": {}, "fisher": {},
}  # fmt: skip
ONE = {"slerp", "nearswap", "arcee_fusion", "passthrough"}  # take one model beside the base
UNWEIGHTED = {name for name, method in METHODS.items() if "weight" not in method.parameters}


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"))


def recipe(triple: dict[str, Path], method: str, *, weights: tuple[float, float] = (0.3, 0.7), models=("sft", "rlhf"),
           **parameters: object) -> MergeRecipe:  # fmt: skip
    if method in ONE:
        entries = [{"model": str(triple[models[-1]])}]
    elif method in UNWEIGHTED:
        entries = [{"model": str(triple[m])} for m in models]
    else:
        entries = [{"model": str(triple[m]), "parameters": {"weight": w}} for m, w in zip(models, weights, strict=True)]
    settings, more = {**NEEDS[method], **parameters}, {}
    if METHODS[method].projects:
        more["calibration"] = {"data": rows_of(triple, 0)}
    if METHODS[method].consensus.calibrated:
        entries = [{**entry, "calibration": {"data": rows_of(triple, i)}} for i, entry in enumerate(entries)]
    return MergeRecipe(merge_method=method, base_model=str(triple["base"]), models=entries, parameters=settings, **more)


def rows_of(triple: dict[str, Path], which: int) -> str:
    rows = triple["base"].parent / f"rows-{which}.jsonl"
    step = 7 + which
    rows.write_text("".join(json.dumps({"text": f"w{i} w{step * i % 50} w{i * i % 60}"}) + "\n" for i in range(30)))
    return str(rows)


def merged(recipe: MergeRecipe) -> dict[str, torch.Tensor]:
    return dict(merge_tensors(plan_merge(recipe)))


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def same_bytes(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype and torch.equal(a[n].view(torch.uint8), b[n].view(torch.uint8)) for n in a
    )


def test_every_method_of_the_table_is_tested_here() -> None:
    assert set(NEEDS) == set(METHODS)


def test_linear_is_the_weighted_mean(triple: dict[str, Path]) -> None:
    got = merged(recipe(triple, "linear", weights=(1.0, 3.0)))
    sft, rlhf = weights_of(triple["sft"]), weights_of(triple["rlhf"])
    for name, value in got.items():
        expected = (sft[name].double() + 3 * rlhf[name].double()) / 4
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-8)


def test_task_arithmetic_adds_the_weighted_task_vectors(triple: dict[str, Path]) -> None:
    got = merged(recipe(triple, "task_arithmetic", **{"lambda": 0.8}))
    base, sft, rlhf = (weights_of(triple[m]).copy() for m in ("base", "sft", "rlhf"))
    for name, value in got.items():
        b = base[name].double()
        expected = b + 0.8 * (0.3 * (sft[name].double() - b) + 0.7 * (rlhf[name].double() - b))
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)


def test_slerp_keeps_the_angle_in_proportion(triple: dict[str, Path]) -> None:
    got = merged(recipe(triple, "slerp", t=0.25))
    base, rlhf = weights_of(triple["base"]), weights_of(triple["rlhf"])

    def angle(x: torch.Tensor, y: torch.Tensor) -> float:
        x, y = x.double().flatten(), y.double().flatten()
        return float(torch.acos(torch.dot(x, y) / x.norm() / y.norm()))

    name = "model.layers.1.mlp.up_proj.weight"
    whole = angle(base[name], rlhf[name])
    assert whole > 0.05  # else it would be the linear fallback
    assert angle(base[name], got[name]) == pytest.approx(0.25 * whole, rel=0.05)


def plain_ties(base, models, weights, density, normalize=True):
    """TIES for one tensor, written from the paper with sorts: trim, elect, disjoint mean."""
    trimmed = []
    for x, w in zip(models, weights, strict=True):
        delta = (x - base).flatten()
        keep = torch.argsort(delta.abs(), descending=True, stable=True)[: max(1, int(density * delta.numel()))]
        sparse = torch.zeros_like(delta)
        sparse[keep] = delta[keep]
        trimmed.append(w * sparse)
    total = sum(trimmed)
    sign = torch.where(total >= 0, 1.0, -1.0).to(total.dtype)
    part = [(t * sign > 0).to(total.dtype) for t in trimmed]
    result = sum(t * p for t, p in zip(trimmed, part, strict=True))
    if normalize:
        divisor = sum(w * p for w, p in zip(weights, part, strict=True))
        result = result / torch.where(divisor == 0, 1.0, divisor)
    return base + result.view_as(base)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("density", [0.2, 0.77])
def test_ties_trims_elects_and_merges_as_the_paper_says(triple: dict[str, Path], density: float, normalize: bool) -> None:
    got = merged(recipe(triple, "ties", density=density, normalize=normalize))
    base, sft, rlhf = (weights_of(triple[m]) for m in ("base", "sft", "rlhf"))
    for name, value in got.items():
        expected = plain_ties(base[name], [sft[name], rlhf[name]], [0.3, 0.7], density, normalize)
        torch.testing.assert_close(value, expected, rtol=2e-6, atol=1e-7)


def test_dare_keeps_the_asked_fraction_and_rescales_by_its_inverse(triple: dict[str, Path]) -> None:
    got = merged(recipe(triple, "dare_linear", models=("rlhf",), weights=(1.0,), density=0.25))
    base, rlhf = weights_of(triple["base"]), weights_of(triple["rlhf"])
    kept = total = 0
    for name, value in got.items():
        delta, sparse = rlhf[name] - base[name], value - base[name]
        on = sparse != 0
        torch.testing.assert_close(sparse[on], (delta / 0.25)[on], rtol=1e-4, atol=1e-6)
        kept, total = kept + int(on.sum()), total + on.numel()
    assert abs(kept / total - 0.25) < 5 * (0.25 * 0.75 / total) ** 0.5


def test_dare_with_l1_rescaling_keeps_each_tensors_l1_norm(triple: dict[str, Path]) -> None:
    got = merged(recipe(triple, "dare_linear", models=("rlhf",), weights=(1.0,), density=0.5, rescale=True))
    base, rlhf = weights_of(triple["base"]), weights_of(triple["rlhf"])
    for name, value in got.items():
        before, after = (rlhf[name] - base[name]).abs().sum(), (value - base[name]).abs().sum()
        assert float(after) == pytest.approx(float(before), rel=1e-4)


# --- theorems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(NEEDS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merging_a_model_with_itself_gives_it_back_byte_for_byte(tmp_path: Path, method: str, dtype: torch.dtype) -> None:
    weights = random_weights(3)
    weights["model.norm.weight"][:8] = -0.0  # the sign of a zero is a byte too
    model = write_checkpoint(tmp_path / "m", weights, dtype)
    twin = write_checkpoint(tmp_path / "twin", weights, dtype)
    paths = {"base": model, "sft": twin, "rlhf": twin}
    overrides = {"density": 1.0} if "density" in NEEDS[method] else {}
    assert same_bytes(merged(recipe(paths, method, **overrides)), weights_of(model))


@pytest.mark.parametrize("method", ["linear", "slerp"])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_ends_of_an_interpolation_are_the_inputs_byte_for_byte(triple: dict[str, Path], method: str, end: float) -> None:
    if method == "linear":
        got = merged(recipe(triple, "linear", models=("base", "rlhf"), weights=(1 - end, end)))
    else:
        got = merged(recipe(triple, "slerp", t=end))
    assert same_bytes(got, weights_of(triple["rlhf" if end else "base"]))


def test_dare_at_density_one_is_task_arithmetic(triple: dict[str, Path]) -> None:
    assert same_bytes(merged(recipe(triple, "dare_linear", density=1.0)), merged(recipe(triple, "task_arithmetic")))


def test_ties_at_density_one_with_equal_signs_is_task_arithmetic(tmp_path: Path) -> None:
    base = random_weights(0)
    step = {n: w.abs() * 0.1 for n, w in random_weights(1).items()}
    paths = {"base": write_checkpoint(tmp_path / "base", base)}
    for name, size in (("sft", 1.0), ("rlhf", 2.5)):
        paths[name] = write_checkpoint(tmp_path / name, {n: base[n] + size * step[n] for n in base})
    ties = merged(recipe(paths, "ties", density=1.0, normalize=False))
    arithmetic = merged(recipe(paths, "task_arithmetic"))
    for name, value in ties.items():
        torch.testing.assert_close(value, arithmetic[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", sorted(NEEDS))
def test_the_bytes_do_not_depend_on_threads_or_shards(triple: dict[str, Path], tmp_path: Path, method: str) -> None:
    plan = plan_merge(recipe(triple, method))
    merge_to_directory(plan, tmp_path / "one", threads=1)
    merge_to_directory(plan, tmp_path / "many", threads=5, shard_bytes=6_000)
    parts = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(parts) > 3
    many = {n: t for part in parts for n, t in load_file(part).items()}
    assert same_bytes(weights_of(tmp_path / "one"), many)
    assert same_bytes(merged(recipe(triple, method)), many)


def test_bf16_output_is_the_correctly_rounded_fp32_result(tmp_path: Path) -> None:
    triple = write_triple(tmp_path, torch.bfloat16)
    for method in sorted(NEEDS):
        wide = merged(recipe(triple, method).model_copy(update={"out_dtype": "float32"}))
        narrow = merged(recipe(triple, method))
        assert same_bytes({n: w.bfloat16() for n, w in wide.items()}, narrow), method


def test_another_seed_keeps_other_entries(triple: dict[str, Path]) -> None:
    one = merged(recipe(triple, "dare_linear"))
    two = merged(recipe(triple, "dare_linear").model_copy(update={"seed": 1}))
    assert not same_bytes(one, two)


def test_relative_to_says_where_a_delta_starts(triple: dict[str, Path]) -> None:
    base, sft, rlhf = (str(triple[m]) for m in ("base", "sft", "rlhf"))
    got = merged(MergeRecipe(
        merge_method="task_arithmetic", base_model=sft,
        models=[
            {"model": rlhf, "relative_to": sft, "parameters": {"weight": 0.9}},
            {"model": sft, "relative_to": base, "parameters": {"weight": 0.1}},
        ],
    ))  # fmt: skip
    b, s, r = (weights_of(triple[m]) for m in ("base", "sft", "rlhf"))
    for name, value in got.items():
        expected = s[name] + 0.9 * (r[name] - s[name]) + 0.1 * (s[name] - b[name])
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)


def test_gradients_and_filters_choose_the_weight_of_each_tensor(triple: dict[str, Path]) -> None:
    weight = [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 0.5}]
    got = merged(MergeRecipe(
        merge_method="task_arithmetic", base_model=str(triple["base"]),
        models=[{"model": str(triple["rlhf"]), "parameters": {"weight": weight}}],
    ))  # fmt: skip
    base, rlhf = weights_of(triple["base"]), weights_of(triple["rlhf"])
    for name, value in got.items():
        layer = int(name.split(".")[2]) if ".layers." in name else 0
        share = layer / 2 if ".mlp." in name else 0.5
        torch.testing.assert_close(value, base[name] + share * (rlhf[name] - base[name]), rtol=1e-6, atol=1e-7)


def test_scope_model_trims_over_the_whole_task_vector(triple: dict[str, Path]) -> None:
    weights = weights_of(triple["base"])
    got = merged(recipe(triple, "ties", models=("rlhf",), weights=(1.0,), density=0.3, scope="model"))
    deltas = {n: weights_of(triple["rlhf"])[n] - w for n, w in weights.items()}
    flat = torch.cat([deltas[n].flatten() for n in got])
    keep = torch.zeros_like(flat, dtype=torch.bool)
    keep[torch.argsort(flat.abs(), descending=True, stable=True)[: int(0.3 * flat.numel())]] = True
    at = 0
    for name, value in got.items():
        mask = keep[at : at + value.numel()].view_as(value)
        torch.testing.assert_close(value, weights[name] + deltas[name] * mask, rtol=1e-6, atol=1e-7)
        at += value.numel()


def test_the_expectation_of_della_is_the_task_vector(triple: dict[str, Path]) -> None:
    base, rlhf = weights_of(triple["base"]), weights_of(triple["rlhf"])
    name, runs = "model.layers.1.mlp.up_proj.weight", 200
    total = torch.zeros_like(base[name])
    spec = recipe(triple, "della_linear", models=("rlhf",), weights=(1.0,))
    for seed in range(runs):
        total += merged(spec.model_copy(update={"seed": seed}))[name] - base[name]
    delta = rlhf[name] - base[name]
    # a survivor's weight varies with (1 - p)/p, at most (1 - 0.3)/0.3 here
    error = (total / runs - delta) / (delta.abs() * (0.7 / 0.3 / runs) ** 0.5)
    assert float(error.abs().max()) < 5.5
    assert float(error.pow(2).mean()) < 1.1
