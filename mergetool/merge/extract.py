"""The adapter of a given rank that makes one model of another: the best approximation of model − base, layer by layer.

Source: as `mergekit-extract-lora`; the approximation is Eckart and Young's, 1936.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergetool.merge.recipe import ADAPTER_OUTPUT, MergeRecipe, merge_recipe
from mergetool.merge.run import merge


def extraction(model: str | Path, base: str | Path, rank: int, dtype: str | None = None) -> MergeRecipe:
    """The recipe of an extraction: the whole task vector, written as an adapter.

    Args:
        model, base: each a directory, `lab:NAME`, or ``org/name[@revision]``.
        rank: of the adapter's layers, at most.
        dtype: of the adapter; default: float32.

    Raises:
        RecipeError: the rank is below 1, or the dtype is none.
    """
    recipe: Mapping[str, Any] = {
        "merge_method": "task_arithmetic",
        "base_model": str(base),
        "models": [{"model": str(model), "parameters": {"weight": 1.0}}],
        "output": ADAPTER_OUTPUT,
        "rank": rank,
        **({"dtype": dtype} if dtype else {}),
    }
    return merge_recipe(recipe, source="extract")


def extract(
    model: str | Path, base: str | Path, out: str | Path, *, rank: int, dtype: str | None = None, **options: Any
) -> dict[str, Any]:
    """Write model − base as a LoRA adapter of `base`, as ``mergetool extract`` does; resumes an interrupted run.

    Args:
        model, base: each a directory, `lab:NAME`, or ``org/name[@revision]``.
        out: the adapter's directory; its name appears only when it is complete.
        rank: of the layers, at most. Norms, biases and what is tied are kept whole where they differ.
        dtype: of the adapter; default: float32.
        **options: as `mergetool.merge`: threads, fresh, device, allow_nonfinite, allow_pickle, progress.

    Returns:
        The manifest. Under `adapter`, ``norm_kept`` is ‖adapter‖/‖model − base‖.

    Raises:
        RecipeError, CheckpointError, OutputError: as `mergetool.merge`.
    """
    return merge(extraction(model, base, rank, dtype), out, **options)
