"""Settings for the whole suite."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The tensors here are small: one thread is faster than two, and does not wait for a core that is busy elsewhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it when it is imported
# No test may reach for the network, and no test is judged by the clock.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
settings.register_profile("mergetool", deadline=None)
settings.load_profile("mergetool")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small model of a class of transformers: (class, folder's name, seed, settings) -> its directory."""
    from tests.architecture.small import save

    return lambda kind, name, seed=0, **config: save(kind, tmp_path / name, seed, **config)
