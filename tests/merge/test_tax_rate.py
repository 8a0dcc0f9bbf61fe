"""The tax rate is the share of a delta that the inputs of the rows see: all of one made of them, none of one beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.activations.artifact import Calibration, Site, Tensor
from mergetool.errors import CheckpointError, RecipeError
from mergetool.merge.inspection import by_layer, inspect
from tests.helpers import random_weights, write_checkpoint

NAME = "model.layers.0.mlp.up_proj.weight"


def calibration(rank: int = 4) -> tuple[Calibration, torch.Tensor]:
    """Rows that read `rank` directions of 32, all alike strongly."""
    vectors, _ = torch.linalg.qr(torch.randn(32, rank, generator=torch.Generator().manual_seed(0)))
    stored = {"x.values": torch.ones(rank), "x.vectors": vectors.contiguous()}
    site = Site(size=32, trace=float(rank), count=10, rank=rank, energy=1.0)
    return Calibration({}, {"x": site}, {NAME: Tensor((48, 32), columns=("x",))}, stored.__getitem__), vectors


def pair(root: Path, delta: torch.Tensor) -> tuple[Path, Path]:
    base = random_weights(0)
    return (
        write_checkpoint(root / "model", {**base, NAME: base[NAME] + delta}),
        write_checkpoint(root / "base", base),
    )


@pytest.mark.parametrize(("share", "rate"), [(1.0, 1.0), (0.0, 0.0), (0.5, 0.5)])
def test_it_is_what_lies_in_the_rows_directions(tmp_path: Path, share: float, rate: float) -> None:
    known, vectors = calibration()
    random = torch.randn(48, 32, generator=torch.Generator().manual_seed(1))
    seen, unseen = random @ vectors @ vectors.T, random - random @ vectors @ vectors.T
    delta = share**0.5 * seen / seen.norm() + (1 - share) ** 0.5 * unseen / unseen.norm()
    model, base = pair(tmp_path, delta)
    known.save(tmp_path / "c.safetensors")
    facts = {fact.name: fact for fact in inspect(model, base, calibration=tmp_path / "c.safetensors")}
    assert facts[NAME].tax_rate == pytest.approx(rate, abs=1e-3)
    assert facts[NAME].tax_rate_by_chance == 4 / 32
    assert facts["model.norm.weight"].tax_rate is None
    row = next(row for row in by_layer(list(facts.values())) if row["layer"].endswith("layers.0"))
    assert row["tax_rate"] == pytest.approx(rate, abs=1e-3)


def test_a_calibration_of_another_model_or_without_a_base_is_refused(tmp_path: Path) -> None:
    model, base = pair(tmp_path, torch.zeros(48, 32))
    known, _ = calibration()
    known.tensors[NAME] = Tensor((48, 33), columns=("x",))  # type: ignore[index]
    known.save(tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="in another shape; calibrate the model that --base names"):
        inspect(model, base, calibration=tmp_path / "c.safetensors")
    with pytest.raises(RecipeError, match="give base"):
        inspect(model, calibration=tmp_path / "c.safetensors")
