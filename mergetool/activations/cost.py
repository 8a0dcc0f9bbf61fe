"""What calibrating a checkpoint takes, from its config alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mergetool.activations.fisher_file import BYTES_PER_ENTRY, groups_of
from mergetool.activations.fisher_file import GROUP_BYTES as FISHER_GROUP_BYTES
from mergetool.activations.survey import GROUP_BYTES, RANK, Unit, survey
from mergetool.errors import CheckpointError
from mergetool.hub.loading import model_directory


@dataclass(frozen=True)
class Estimate:
    """What calibrating takes: bytes of the model, bytes beside it at most, and passes over the rows."""

    model_bytes: int
    group_bytes: int
    passes: int


def estimate(model: str | Path, rank: int = RANK, group_bytes: int = GROUP_BYTES) -> Estimate:
    """What calibrating a checkpoint would take, from its config alone: no weights are read.

    Args:
        model, rank, group_bytes: as `calibrate`.

    Raises:
        CheckpointError: transformers does not know the model.
    """
    live = _skeleton(model)
    maps = survey(live, [0, 0])
    for name, shape in maps.shapes.items():
        if len(shape) == 3 and name not in maps.sides:  # experts, which a model without weights does not run one by one
            maps.units += [Unit(name, "columns", expert, max(shape[1:]), len(maps.units)) for expert in range(shape[0])]
    wide = 4 if device_is_cpu() else 2
    return Estimate(
        wide * sum(p.numel() for p in live.parameters()), maps.peak_bytes(rank, group_bytes), len(maps.groups(group_bytes))
    )


def fisher_estimate(model: str | Path, group_bytes: int = FISHER_GROUP_BYTES) -> Estimate:
    """The same of a model's Fisher information: it is computed in fp32 everywhere, and its file is as large as the model.

    Args:
        model: a checkpoint.
        group_bytes: gradients and sums held at a time.

    Raises:
        CheckpointError: transformers does not know the model.
    """
    live = _skeleton(model)
    groups, entries = groups_of(live, group_bytes), {name: p.numel() for name, p in live.named_parameters()}
    largest = max(BYTES_PER_ENTRY * sum(entries[name] for name in group) for group in groups)
    return Estimate(4 * sum(entries.values()), largest, len(groups))


def _skeleton(model: str | Path) -> Any:
    """The model without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    place = model_directory(model, weights=False)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
        with torch.device("meta"):
            # bf16 is what fused experts take on `meta`; nothing that is counted here depends on it
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False).eval()
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{model}: {error}", "give a causal language model that transformers can load") from None


def device_is_cpu() -> bool:
    """Whether `calibrate` will run on a CPU, where it loads fp32."""
    import torch

    return not torch.cuda.is_available()
