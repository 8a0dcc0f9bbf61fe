"""What calibrating takes is told from the config alone, and holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.activations import estimate
from tests.activations.models import CONFIGS
from tests.helpers import random_weights, write_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "sft", random_weights(0))


def test_the_estimate_needs_no_weights_and_holds(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((model / "config.json").read_text())
    found = estimate(bare)
    assert found.passes == 1
    # three layers of three sums of 32² and one of 48², and the head's; the diagonals and eigenpairs are small beside them
    sums = 8 * (3 * (3 * 32**2 + 48**2) + 32**2)
    assert sums < found.group_bytes < 2 * sums
    assert estimate(bare, group_bytes=8 * 48**2).passes > 3


def test_the_estimate_counts_every_expert(tmp_path: Path) -> None:
    CONFIGS["qwen3_moe"]().save_pretrained(tmp_path)
    experts = 2 * 4 * 8 * (max(48, 32) ** 2 + max(32, 24) ** 2)  # two layers of four experts, each stack by its longer side
    # attention and the eigenpairs come on top
    assert experts < estimate(tmp_path).group_bytes < 3 * experts
