"""The embedded lab: a small real Llama triple, its tokenizer and its data. README.md beside this file describes it.

lab_path("sft")               a checkpoint directory: base, sft, rlhf
lab_path("skills_test")       a data file, gzipped JSON lines
copy_lab(Path("lab"))         all of it, for a user to change
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parent
CHECKPOINTS = ("base", "sft", "rlhf")
DATA = (
    "sft_train",
    "skills_train",
    "skills_validation",
    "skills_test",
    "preferences_train",
    "preferences_validation",
    "preferences_test",
    "text_test",
)

__all__ = ["CHECKPOINTS", "DATA", "copy_lab", "lab_path"]


def lab_path(name: str) -> Path:
    """Where a checkpoint or a data file of the lab lies.

    Args:
        name: one of CHECKPOINTS or DATA.

    Raises:
        KeyError: there is no such name.
    """
    if name in CHECKPOINTS:
        return ROOT / "triple" / name
    if name in DATA:
        return ROOT / "data" / f"{name}.jsonl.gz"
    raise KeyError(f"the lab has no {name!r}; it has {', '.join(CHECKPOINTS + DATA)}")


def copy_lab(out: Path) -> Path:
    """Copies the triple and the data below `out` (as triple/ and data/), which may exist; returns `out`."""
    out = Path(out)
    for part in ("triple", "data"):
        shutil.copytree(ROOT / part, out / part, dirs_exist_ok=True)
    return out
