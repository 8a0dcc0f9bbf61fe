"""A small triple and a merge recipe for the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.helpers import write_triple


@pytest.fixture(scope="package")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """base, sft and rlhf; not to be written to."""
    return write_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture
def recipe(triple: dict[str, Path], tmp_path: Path) -> Path:
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    content = {"merge_method": "ties", "base_model": str(triple["base"]), "models": models, "parameters": {"density": 0.5}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"
