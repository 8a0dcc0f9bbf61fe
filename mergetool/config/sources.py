"""Where a model or a data file of a recipe lies: in the lab, beside the recipe, or on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from mergetool.errors import RecipeError, nearest

LAB = "lab:"
# One organisation, one name, and what may follow: a revision; the configuration and split of a data set, which may be sliced.
_SPLIT = r"[\w.-]+(\[[\w:%-]*\])?"
_HUB_ID = re.compile(rf"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?(:[\w.-]+)?(:{_SPLIT}(\+{_SPLIT})*)?")
_FILE_ENDINGS = (
    ".jsonl", ".jsonl.gz", ".ndjson", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".parquet", ".arrow", ".yaml", ".yml",
    ".txt", ".safetensors",
)  # fmt: skip


def resolve_source(text: str, relative_to: str | Path) -> Path | str:
    """What a recipe means by the name of a model or of a data set.

    Args:
        text: `lab:NAME` for a part of the embedded lab, a path, or a Hub id `org/name`.
        relative_to: the directory that relative paths start from: the recipe's own.

    Returns:
        A Path for what lies (or should lie) on this disk, whether it exists or not; the text itself for a Hub id.

    Raises:
        RecipeError: the lab has no such part, or the text is empty.
    """
    text = str(text).strip()
    if not text:
        raise RecipeError("an empty path", "give a directory, a file, lab:NAME or a Hub id")
    if text.startswith(LAB):
        return _lab(text.removeprefix(LAB))
    local = Path(relative_to) / Path(text).expanduser()
    if local.exists() or not looks_like_hub_id(text):
        return local
    return text


def looks_like_hub_id(text: str) -> bool:
    """True for `org/name` (with `@revision`, or `:config:split`) that is not plainly a file.

    A single word is taken for a path: a mistyped directory is more frequent than a data set without an owner.
    """
    return bool(_HUB_ID.fullmatch(text)) and not text.lower().endswith(_FILE_ENDINGS)


def _lab(name: str) -> Path:
    from mergetool import lab

    try:
        return lab.lab_path(name)
    except KeyError:
        raise RecipeError(f"the lab has no '{name}'", nearest(name, [*lab.CHECKPOINTS, *lab.DATA])) from None
