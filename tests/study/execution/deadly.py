"""A candidate that kills its worker, and how two results are compared."""

import pytest

from tests.study import tiny

DEADLY = """
import os, signal
from pathlib import Path

def reward(*args, **kwargs):
    note = Path({note!r})
    tries = int(note.read_text()) if note.exists() else 0
    note.write_text(str(tries + 1))
    if tries < {deaths}:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("this time it only fails")
"""


def deadly(folder, tmp_path, deaths, beside):
    """A study with a candidate that kills its worker in the middle of a training."""
    (tmp_path / "deadly.py").write_text(DEADLY.format(note=str(tmp_path / "tries"), deaths=deaths))
    training = {
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "num_generations": 2,
        "max_completion_length": 2,
        "use_cpu": True,
    }
    return tiny.study(
        folder,
        align_defaults={
            "algorithm": "grpo",
            "reward": str(tmp_path / "deadly.py:reward"),
            "data": {"train": "pairs_validation.jsonl"},
            "training": training,
        },
        candidates=[
            {"name": "deadly", "align": {"method": "adamw"}},
            beside,
        ],
    )


def same_lines(result, alone):
    by_name = {row["name"]: row for row in result.rows}
    for row in alone.rows:
        values = [one["scores"]["test"]["skills.nll"]["value"] for one in (row, by_name[row["name"]])]
        assert values[0] == pytest.approx(values[1], rel=1e-5)
