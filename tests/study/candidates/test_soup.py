"""Soups are what their formula says of the runs that they are made of, and a training may start from one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.manifest import Manifest
from mergetool.checkpoint.reader import Reader
from mergetool.errors import MergetoolError
from mergetool.study import check_study, run_study
from mergetool.study.execution.save import save
from mergetool.study.recipe.expand import expand
from tests.study import tiny

DEFAULTS = {
    "data": {"train": "pairs_validation.jsonl", "max_length": 32},
    "training": {"max_steps": 3, "per_device_train_batch_size": 2, "learning_rate": 3e-3, "use_cpu": True},
}
RUNS = {"name": "runs", "align": {"method": "adamw", "seed": [0, 1], "checkpoints": [1, 2]}}
WARP = {"name": "warp", "soup": {"of": "runs", "merge_method": "nuslerp", "weight": 0.3}}
AGAIN = {"name": "again", "align": {"method": "adamw", "start": "warp", "training": {"max_steps": 1}}}


def study(folder: Path, *candidates: dict):
    return tiny.study(folder, candidates=list(candidates), align_defaults=DEFAULTS)


def load(folder: Path) -> dict:
    layout = read_layout(folder)
    with Reader(layout) as reader:
        return {name: reader.tensor(name).clone().double() for name in layout.tensors}


def slerp(a, b, t: float):
    import torch

    angle = torch.acos((a.flatten() @ b.flatten() / (a.norm() * b.norm())).clamp(-1, 1))
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


@pytest.fixture(scope="module")
def done(folder, tmp_path_factory):
    """Two runs with models along them; their soups; a round of WARP; a run that starts from it."""
    soup = {"name": "soup", "soup": {"of": "runs", "curve": ["ema", "sma"], "coefficient": 0.3}}
    onward = {"name": "onward", "soup": {"of": "again", "weight": 2}}
    back = {"name": "back", "soup": {"of": "again", "since": "sft", "weight": 0.5}}
    recipe = study(folder, AGAIN, soup, WARP, RUNS, onward, back)  # in any order
    check_study(recipe)
    out = tmp_path_factory.mktemp("soups") / "out"
    result = run_study(recipe, out)
    assert result.failures == []
    save(recipe, result, "all")
    return recipe, out, result


def test_a_soup_by_curve_ema_is_the_moving_average_of_the_models_along_its_run(done) -> None:
    _, out, _ = done
    for seed in (0, 1):
        run = out / f"candidates/runs-seed{seed}"
        mean, *later = (load(place) for place in (run / "along/step-1", run / "along/step-2", run))
        for model in later:
            mean = {name: old + 0.3 * (model[name] - old) for name, old in mean.items()}
        found = load(out / f"candidates/soup-curveema-seed{seed}")
        assert all((found[name] - mean[name]).abs().max() < 1e-6 for name in mean)


def test_a_round_of_warp_is_a_share_of_the_arc_between_task_vectors(done, folder) -> None:
    _, out, _ = done
    sft, one, two = (load(place) for place in (folder / "sft", out / "candidates/runs-seed0", out / "candidates/runs-seed1"))
    found = load(out / "candidates/warp")
    for name, start in sft.items():
        a, b = one[name] - start, two[name] - start
        if a.norm() > 0 and b.norm() > 0:
            assert (found[name] - start - 0.3 * slerp(a, b, 0.5)).abs().max() < 1e-6, name


def test_a_training_starts_from_it_and_a_soup_goes_on_from_that_start(done, folder) -> None:
    _, out, _ = done
    warp, again = load(out / "candidates/warp"), load(out / "candidates/again")
    account = Manifest.read(out / "candidates/again")
    assert account.recipe["sft_model"] == str(out / "candidates/warp")
    moved = sum(float((again[name] - warp[name]).square().sum()) for name in warp) ** 0.5
    assert moved == pytest.approx(account.drift["norm"], rel=1e-4)
    onward, back, sft = load(out / "candidates/onward"), load(out / "candidates/back"), load(folder / "sft")
    for name in warp:
        assert (onward[name] - (2 * again[name] - warp[name])).abs().max() < 1e-6
        assert (back[name] - (again[name] + sft[name]) / 2).abs().max() < 1e-6


def test_run_again_nothing_is_made_and_the_recipe_beside_it_is_what_merge_takes(done, tmp_path) -> None:
    from mergetool.merge import load_merge_recipe

    recipe, out, result = done
    assert run_study(recipe, out).ran == 0
    for row in result.rows:
        if row["kind"] == "soup":
            (tmp_path / "r.yaml").write_text(yaml.safe_dump(row["recipe"]))
            assert load_merge_recipe(tmp_path / "r.yaml").models


def test_a_start_that_is_gone_is_made_again(done, folder) -> None:
    import shutil

    _, out, _ = done
    shutil.rmtree(out / "candidates/warp")
    more = {"name": "more", "align": {**AGAIN["align"], "seed": 7}}
    result = run_study(study(folder, RUNS, WARP, more), out)
    assert (result.failures, result.ran) == ([], 2)
    assert (out / "candidates/warp/model.safetensors").exists()


@pytest.mark.parametrize(
    ("candidates", "says"),
    [
        ([RUNS, {"name": "s", "soup": {"of": "rums"}}], "did you mean 'runs'"),
        ([{"name": "s", "soup": {"of": "t"}}, {"name": "t", "soup": {"of": "s"}}], "made of itself"),
        ([RUNS, {"name": "s", "align": {"method": "adamw", "start": "runs"}}], "these are 2 candidates"),
        ([AGAIN, WARP, RUNS, {"name": "s", "soup": {"of": "again", "curve": "sma"}}], "keeps no models along its run"),
        ([RUNS, {"name": "s", "soup": {"of": "runs", "curve": "smma"}}], "did you mean 'sma'"),
        ([RUNS, {"name": "s", "soup": {"of": "runs", "curve": "ema"}}], "add `coefficient: 0.2`"),
        ([RUNS, {"name": "s", "soup": {"of": "runs", "merge_method": "model_stock", "weight": 0.5}}], "goes the whole way"),
        ([RUNS, {"name": "s", "soup": {"of": "runs", "merge_method": "nuslerpp"}}], "nuslerp"),
        ([{**RUNS, "align": {"method": "adamw"}}, WARP], "takes 2 models"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_line_of_check(folder, candidates: list[dict], says: str) -> None:
    with pytest.raises(MergetoolError, match=says):
        check_study(study(folder, *candidates))


def test_a_study_without_soups_has_its_candidates_as_before(folder) -> None:
    merge = {"name": "m", "merge": {"merge_method": "linear", "weight": 0.5}}
    recipe = tiny.study(folder, candidates=[merge, RUNS], align_defaults=DEFAULTS)
    assert [one.name for one in expand(recipe)] == [
        "sft", "base", "rlhf", "runs seed=0", "runs seed=1", "m w=0.5",
        "runs step=1 seed=0", "runs step=2 seed=0", "runs step=1 seed=1", "runs step=2 seed=1",
    ]  # fmt: skip
