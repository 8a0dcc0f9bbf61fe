"""A tensor on disk is found in its model's calibration, under whatever name and in whatever stack it has there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.activations import Calibration, measure
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory
from mergetool.errors import CheckpointError
from mergetool.merge.own_moments import OwnMoments
from mergetool.merge.plan import Source, TensorPlan, Term
from mergetool.ops.regression import Side, shares
from tests.activations.models import live, sequences


def plan(name: str, shape: tuple[int, ...]) -> TensorPlan:
    return TensorPlan(name, shape, 1, "F32", True, 0, tuple(Term(i, None, 1.0, str(i)) for i in range(2)))


def same(side: Side, calibrations: list[Calibration], key: str) -> bool:
    made, expected = side((0.5, 0.5), 0.9, 0), shares([one.moments(key) for one in calibrations], [0.5, 0.5], 0.9, 0)
    assert made is not None
    assert expected is not None
    assert made.left is not None
    assert expected.left is not None
    return torch.equal(made.left[1], expected.left[1])


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Calibration], list[Source]]:
    """Two mixtures of experts, fused in memory, one by one on disk."""
    found, sources = [], []
    for seed in range(2):
        torch.manual_seed(seed)
        model, place = live("qwen3_moe"), tmp_path_factory.mktemp(f"moe-{seed}")
        model.save_pretrained(place)
        found.append(measure(model, sequences(), rank=1000, energy=1.0))
        sources.append(Source(place.name, layout_of(Directory(place))))
    return found, sources


def test_an_expert_on_disk_has_its_own_inputs(experts: tuple[list[Calibration], list[Source]]) -> None:
    calibrations, sources = experts
    name, weight = "model.layers.1.mlp.experts.2.down_proj.weight", "model.layers.1.mlp.experts.down_proj"
    sides = OwnMoments(calibrations, sources).known(plan(name, sources[0].layout.tensors[name].shape))
    assert sides is not None
    (column,) = sides.columns
    key = calibrations[0].tensors[weight].columns[2]
    assert key is not None
    assert same(column, calibrations, key)
    assert key != calibrations[0].tensors[weight].columns[1]


def test_every_tensor_on_disk_is_known_and_an_unheard_one_is_not(experts: tuple[list[Calibration], list[Source]]) -> None:
    calibrations, sources = experts
    tensors = [plan(name, info.shape) for name, info in sources[0].layout.tensors.items()]
    own = OwnMoments(calibrations, sources)
    assert own.unknown(tensors) == []
    assert own.unknown([*tensors, plan("extra.weight", (4, 4))]) == ["extra.weight"]


def test_shares_are_made_once_for_the_maps_that_read_one_input(
    experts: tuple[list[Calibration], list[Source]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrations, sources = experts
    read: list[str] = []
    for one in calibrations:
        before = one.moments
        monkeypatch.setattr(one, "moments", lambda key, before=before: read.append(key) or before(key))
    own, found = OwnMoments(calibrations, sources), []
    for part in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.0.self_attn.{part}.weight"
        sides = own.known(plan(name, sources[0].layout.tensors[name].shape))
        assert sides is not None
        found.append(sides.columns[0]((0.5, 0.5), 0.9, 0))
    assert len(read) == 2
    assert found[0] is found[1] is found[2]
    sides = own.known(plan("model.layers.0.self_attn.q_proj.weight", (1, 1)))
    assert sides is not None
    assert sides.columns[0]((0.5, 0.5), 0.8, 0) is not found[0]


def test_what_cannot_be_read_is_an_error_each_time(experts: tuple[list[Calibration], list[Source]], tmp_path: Path) -> None:
    calibrations, sources = experts
    gone = tmp_path / "c.safetensors"
    calibrations[0].save(gone)
    opened = Calibration.load(gone)
    gone.unlink()
    name = "model.layers.0.self_attn.q_proj.weight"
    sides = OwnMoments([opened, calibrations[1]], sources).known(plan(name, sources[0].layout.tensors[name].shape))
    assert sides is not None
    for _ in range(2):
        with pytest.raises(CheckpointError, match="cannot be read"):
            sides.columns[0]((0.5, 0.5), 0.9, 0)
