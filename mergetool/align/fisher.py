"""The Fisher information of theta_s on rows that should stay, for `ewc`, as a run keeps it: computed once for all runs."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from mergetool.activations.fisher_file import fisher_key, kept_place, make_fisher
from mergetool.align.report import Report
from mergetool.align.stay import Stay
from mergetool.hub.loading import loaded


def fisher_file(sft: Path, kind: Any, stay: Stay, place: Path, device: Any, ranks: Any, report: Report) -> Path:
    """The file of F for a run: what the interrupted run had, else from the cache, else computed; by the first process alone.

    Args:
        sft: the directory of theta_s; it is computed with in fp32, in evaluation mode.
        kind: transformers' class of the model.
        stay: the rows.
        place: where the run keeps it, so that a resumed run reads the same bytes whatever becomes of the cache.
        device: to compute on.
        ranks: accelerate's PartialState.
        report: told how far it is.

    Returns:
        `place`: safetensors, fp32, under the parameters' names.
    """
    if ranks.is_main_process and not place.exists():
        key = fisher_key(sft, stay.rows, str(device))
        kept = kept_place(key)
        if kept.exists():
            _put(kept, place)
        else:

            def load() -> Any:
                return loaded(kind, sft, str(device), "float32", "give a causal language model")

            facts = {"model": {"source": sft.name}, "rows": {"rows": len(stay.rows), "tokens": stay.tokens}}
            make_fisher(
                place, key, stay.rows, load, facts, lambda done, total: report("information", {"done": done, "total": total})
            )
            with contextlib.suppress(OSError):  # a full or read-only disk costs the next run time, not this one its result
                kept.parent.mkdir(parents=True, exist_ok=True)
                _put(place, kept)
    ranks.wait_for_everyone()
    return place


def _put(file: Path, place: Path) -> None:
    """The same bytes under another name, all of them or none; on one file system they are there once."""
    partial = place.with_suffix(f".{os.getpid()}.partial")
    try:
        os.link(file, partial)
    except OSError:
        shutil.copyfile(file, partial)
    os.replace(partial, place)
