"""Each baseline is what its paper calls it, seen from the weights that come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.align import align, align_recipe
from mergetool.align.baselines import BASELINES
from mergetool.align.merging import KEYS, takes_seed
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from tests.align.tiny import recipe_text


@pytest.fixture(scope="module")
def weights(triple, tmp_path_factory):
    """merging -> the weights of a run, as one dict of tensors; runs are kept."""
    made: dict[str, dict] = {}

    def run(**merging: object) -> dict:
        key = str(merging)
        if key not in made:
            out = tmp_path_factory.mktemp("baseline") / "out"
            align(align_recipe(recipe_text(triple, merging=merging), triple), out)
            made[key] = load(out)
        return made[key]

    return run


def load(folder: Path) -> dict:
    layout = read_layout(folder)
    reader = Reader(layout)
    return {name: reader.tensor(name).clone() for name in layout.tensors}


def distance(a: dict, b: dict) -> float:
    return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(bool((a[name] == b[name]).all()) for name in a)


def test_kl_is_adamw_with_its_beta(weights) -> None:
    assert same(weights(method="kl"), weights(method="adamw"))


def test_l2_of_strength_zero_is_adamw_and_a_strong_one_stays_near_the_sft_model(triple, weights) -> None:
    sft = load(triple / "sft")
    assert same(weights(method="l2", strength=0), weights(method="adamw"))
    assert distance(weights(method="l2", strength=100.0), sft) < 0.9 * distance(weights(method="adamw"), sft)


def test_l1_of_strength_zero_is_adamw_and_a_strong_one_stays_near_the_sft_model(triple, weights) -> None:
    sft = load(triple / "sft")
    assert same(weights(method="l1", strength=0), weights(method="adamw"))
    assert distance(weights(method="l1", strength=100.0), sft) < 0.9 * distance(weights(method="adamw"), sft)


@pytest.mark.parametrize("method", ["replay", "lwf", "ewc"])
def test_rows_of_weight_zero_change_no_bit_and_of_a_large_one_the_weights(weights, method: str) -> None:
    rows = {"data": "stay.jsonl"}
    assert same(weights(method=method, rows=rows, **{"lambda": 0}), weights(method="adamw"))
    assert not same(weights(method=method, rows=rows, **{"lambda": 50}), weights(method="adamw"))


def test_ema_of_coefficient_one_is_adamw_and_a_small_one_stays_near_the_sft_model(triple, weights) -> None:
    sft = load(triple / "sft")
    assert same(weights(method="ema", coefficient=1), weights(method="adamw"))
    near, far = weights(method="ema", coefficient=0.01), weights(method="adamw")
    assert 0 < distance(near, sft) < 0.1 * distance(far, sft)


def test_childtuning_is_ondare_with_alpha_zero(weights) -> None:
    mask = weights(method="ondare", density=0.3, alpha=0, rescale="unbiased")
    assert same(weights(method="childtuning", density=0.3), mask)


def test_lora_moves_linear_layers_by_a_low_rank_and_nothing_else(triple, weights) -> None:
    import torch

    sft, moved = load(triple / "sft"), weights(method="lora", rank=2)
    for name in sft:
        delta = moved[name] - sft[name]
        if "proj" in name:
            assert 0 < int(torch.linalg.matrix_rank(delta, rtol=1e-3)) <= 2
        else:
            assert not delta.any()


def test_all_but_adamw_take_the_seed_that_a_study_gives() -> None:
    assert [name for name in (*KEYS, "unknown") if not takes_seed(name)] == ["adamw"]


def test_the_docs_have_every_row_with_its_options() -> None:
    text = (Path(__file__).parents[2] / "docs/align.md").read_text()
    for row in BASELINES.values():
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{row.name}` | {row.about} |"))
        options = line.rsplit("|", 2)[1].replace("`", "").replace(",", " ").split()
        assert set(options) == row.keys - {"seed"}
