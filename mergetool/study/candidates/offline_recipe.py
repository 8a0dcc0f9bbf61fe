"""The exact merge recipe that a point of an offline grid stands for.

A merge point with weight w (share of RLHF; `alpha` is 1 - w) and density p stands for

    linear           (1 - w) * SFT + w * RLHF
    slerp            the same two, t = w
    others, base     BASE + merge of [SFT - BASE at weight 1 - w, RLHF - BASE at weight w], each at density p
    others, sft      SFT + merge of [SFT - BASE at weight 1 - w, RLHF - SFT at weight w], each at density p

"base" and "sft" are `relative_to`. The third is how the online-merging paper sets its offline baselines; the fourth
is what a Step-K run does whose only merge is its last step, so it is the offline partner of online merging. There an
`alpha` beside `weight` takes the place of 1 - w, and alpha 0 leaves what alignment added, sparsified.
"""

from __future__ import annotations

import itertools
from typing import Any

from mergetool.merge.parts import complement, parts_of
from mergetool.methods import METHODS
from mergetool.study.candidates.models import StudyModels
from mergetool.study.candidates.ranges import Slope


def of_models(method: str) -> bool:
    """Whether a method merges models, not deltas: it has no density and needs no base. mergekit's own do not say."""
    return method in METHODS and METHODS[method].of_models


def projects(method: str) -> bool:
    """Whether a method projects its deltas, so that it needs a calibration of the SFT model."""
    return method in METHODS and METHODS[method].projects


def calibrates_each(method: str) -> bool:
    """Whether a method reads a calibration of each of its models."""
    return method in METHODS and METHODS[method].consensus.calibrated


def merge_recipe(
    method: str,
    weight: float | list[Any],
    relative_to: str = "base",
    density: float | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    alpha: float | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """The merge recipe of one grid point, as the module's docstring says; models are called SFT, BASE and RLHF.

    `weight` may be a setting that differs from part to part, see `mergetool.merge.parts`.
    """
    common = {"dtype": dtype, "seed": seed, "parameters": parameters}
    if method in METHODS and METHODS[method].consensus.pair:
        found = {"merge_method": method, "base_model": "SFT", "models": [{"model": "SFT"}, {"model": "RLHF"}], **common}
        found["parameters"] = {"t": weight, **parameters}
    else:
        kept = {} if density is None else {"density": density}
        weights = {"SFT": rest_of(weight) if alpha is None else alpha, "RLHF": weight}
        entries = [{"model": name, "parameters": {"weight": share, **kept}} for name, share in weights.items()]
        found = {"merge_method": method, "models": entries, **common}
        if not of_models(method):
            found["base_model"] = "BASE"
            if relative_to == "sft":
                found["base_model"] = "SFT"
                entries[0]["relative_to"], entries[1]["relative_to"] = "BASE", "SFT"
                entries.reverse()  # as a Step-K run has them, its own update first: the same masks for the same seed
                if alpha == 0:
                    entries.pop()  # no need of BASE
    return {key: value for key, value in found.items() if value not in (None, {})}


def rest_of(weight: float | list[Any]) -> float | list[Any]:
    """1 − weight: the other model's share."""
    return complement(weight) if isinstance(weight, list) else round(1 - weight, 12)


def by_part(study: StudyModels, shares: list[float] | Slope) -> list[Any]:
    """A merge recipe's setting that has share k in the k-th part of the SFT model's layers, or those of a slope.

    Raises:
        MergetoolError: the model has fewer layers than there are shares, or cannot be read.
    """
    from mergetool.hub.references import open_layout

    rlhf = study.models.rlhf  # an alignment run of the study ties what the SFT model ties
    beside = open_layout(str(study.source(rlhf))) if isinstance(rlhf, str) else None
    sft = open_layout(str(study.source(study.models.sft)))
    parts = parts_of(sft, "layers" if isinstance(shares, Slope) else len(shares), beside=beside)
    values = shares.shares(parts.count) if isinstance(shares, Slope) else shares
    return parts.setting([float(share) for share in values], 0.0)


def combinations(shares: Any, parts: int) -> list[list[float]]:
    """Every way to give each of `parts` parts one of the shares."""
    values = shares if isinstance(shares, list) else [shares]
    return [list(some) for some in itertools.product(values, repeat=parts)]
