"""The diagonal of the Fisher information of theta_s on rows that should stay, for `ewc`: computed once, kept by content."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from mergetool.align.report import Report
from mergetool.align.row_terms import nll
from mergetool.align.stay import Stay, batch_of
from mergetool.files import cache_directory
from mergetool.fingerprints import checkpoint_identity, digest
from mergetool.hub.loading import loaded


def fisher_diagonal(model: Any, stay: Stay, report: Report) -> dict[str, Any]:
    """F_i = mean over rows of (d log pi(answer | prompt) / d theta_i)^2: the empirical Fisher, of the rows' own answers.

    log pi of an answer is the sum over its tokens, and each row has a backward pass of its own: squares of gradients do not
    add up over a batch.

    Args:
        model: theta_s in evaluation mode; the `grad` of its parameters is left as it is.
        stay: the rows.
        report: told how far it is.

    Returns:
        Parameter name -> F of its shape, fp32, on the model's device; a tied parameter under its first name.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796; the empirical diagonal as in Kunstner et al. 2019, arXiv 1905.12558,
    equation 3.
    """
    import torch

    named = dict(model.named_parameters())
    found = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in named.items()}
    for done, row in enumerate(stay.rows, 1):
        batch = batch_of([row]).to(next(iter(named.values())).device)
        gradients = torch.autograd.grad(nll(model, batch), list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            if gradient is not None:  # an expert that no token of the row was sent to
                found[name].addcmul_(gradient.float(), gradient.float())
        report("fisher", {"done": done, "total": len(stay.rows)})
    return {name: square.div_(len(stay.rows)) for name, square in found.items()}


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
    from safetensors.torch import save_file

    if ranks.is_main_process and not place.exists():
        kept = cache_directory("fisher") / f"{_key(sft, stay, device)}.safetensors"
        if kept.exists():
            _put(kept, place)
        else:
            model = loaded(kind, sft, str(device), "float32", "give a causal language model").requires_grad_(True)
            found = {name: square.cpu() for name, square in fisher_diagonal(model, stay, report).items()}
            partial = place.with_suffix(".partial")
            save_file(found, partial)
            os.replace(partial, place)
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


def _key(sft: Path, stay: Stay, device: Any) -> str:
    """What F depends on: the weights, the tokens, and what changes the last bits."""
    import torch

    rows = [[row.ids, row.start] for row in stay.rows]
    return digest([checkpoint_identity(sft), rows, torch.__version__, torch.device(device).type])
