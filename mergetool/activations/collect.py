"""Second moments of a live model: sums over the rows, for some of its maps at a time.

Rows are never padded: a batch holds rows of one length, so that no position has to be left out and nothing depends on how
rows are put together. Sums are fp32 within a batch and fp64 between batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

import torch

from mergetool.activations.artifact import Calibration, Site
from mergetool.activations.eigen import top_eigenpairs
from mergetool.activations.maps import Use, watching
from mergetool.activations.survey import GROUP_BYTES, RANK, Sharing, Survey, Unit, first_tokens, survey, tensors_of

Progress = Callable[[int, int, str], None]
ENERGY = 0.999
BATCH_SIZE, BATCH_TOKENS = 16, 2048
_COLUMNS = 1024  # of a sum that are updated at once: the fp32 product of all would be half as large as the sum


class _Enough(Exception):
    """Nothing that comes later in this forward pass is wanted."""


class _Sum:
    """Σ x xᵀ, or Σ x² where the moment is diagonal; fp64."""

    def __init__(self, unit: Unit, device: torch.device) -> None:
        self.unit, self.count = unit, 0
        full = unit.role in ("columns", "rows")
        self.total = torch.zeros((unit.size, unit.size) if full else unit.size, dtype=torch.float64, device=device)

    def add(self, x: torch.Tensor, rows: int) -> None:
        """Adds the inputs of one batch of so many rows."""
        if self.unit.role == "tokens":
            times = rows if x.shape[0] == 1 else 1  # positions are looked up once for all rows
            self.count += times * x.numel()
            self.total += times * torch.bincount(x.reshape(-1), minlength=self.unit.size)
            return
        x = x.reshape(-1, x.shape[-1]).float()
        self.count += x.shape[0]
        if self.unit.role == "gain":
            self.total += x.square().sum(0)
            return
        for start in range(0, self.unit.size, _COLUMNS):
            part = slice(start, start + _COLUMNS)
            self.total[part] += x[:, part].T @ x

    def site(self, rank: int, energy: float) -> tuple[Site, dict[str, torch.Tensor]]:
        """Its moments, and what is stored of them."""
        mean = self.total.div_(max(self.count, 1))
        if mean.dim() == 1:
            trace = float(mean.sum())
            return Site(self.unit.size, trace, self.count, self.unit.size, 1.0, diagonal=True), {"values": mean.float().cpu()}
        trace = float(mean.diagonal().sum())
        values, vectors = top_eigenpairs(mean, rank, energy)
        kept = float(values.sum()) / trace if trace else 1.0
        stored = {"values": values.float().cpu(), "vectors": vectors.float().cpu().contiguous()}
        return Site(self.unit.size, trace, self.count, values.numel(), kept), stored


def batches(sequences: Sequence[Sequence[int]], size: int = BATCH_SIZE) -> Iterator[list[int]]:
    """Indices of sequences of one length, at most `size` of them and BATCH_TOKENS tokens; short ones first."""
    order = sorted(range(len(sequences)), key=lambda at: (len(sequences[at]), at))
    for length, same in groupby(order, lambda at: len(sequences[at])):
        same = list(same)
        most = max(1, min(size, BATCH_TOKENS // length))
        for start in range(0, len(same), most):
            yield same[start : start + most]


def collect(
    model: Any,
    sequences: Sequence[Sequence[int]],
    maps: Survey,
    group: Sequence[Unit],
    *,
    rank: int = RANK,
    energy: float = ENERGY,
    batch_size: int = BATCH_SIZE,
    told: Callable[[int], None] = lambda tokens: None,
) -> Iterator[tuple[str, Site, dict[str, torch.Tensor]]]:
    """One pass over all rows for one group of units.

    Args:
        model: in evaluation mode.
        sequences: token ids of each row.
        maps: of `survey`; maps that only come to light here are added to it.
        group: of `Survey.groups`.
        rank, energy: as `top_eigenpairs`.
        batch_size: rows in a batch at most.
        told: receives the tokens of each batch when it is done.

    Yields:
        (key, facts, stored tensors) of each unit that read anything.
    """
    orders = {unit.order for unit in group}
    wanted, known = {unit.key for unit in group}, {unit.key for unit in maps.units}
    last, sums = max(orders), dict[str, _Sum]()
    sharing, rows = Sharing(maps), 0

    def add(use: Use) -> None:
        unit = sharing.admit(use)
        if unit is None:
            return
        if unit.order > last and unit.expert is None:  # experts take turns: one's last map comes before the next one's first
            raise _Enough
        if unit.key in wanted or unit.key not in known:
            if unit.key not in sums:
                sums[unit.key] = _Sum(unit, use.x.device)  # type: ignore[union-attr]
            sums[unit.key].add(use.x, rows)  # type: ignore[arg-type]
        if unit.order == last and unit.expert is None and unit.key in known:
            raise _Enough  # before the head has made logits of its input

    device = next(model.parameters()).device
    with torch.no_grad(), watching(model, add):
        for batch in batches(sequences, batch_size):
            ids, rows = torch.tensor([list(sequences[at]) for at in batch], device=device), len(batch)
            with suppress(_Enough):
                model(input_ids=ids, use_cache=False)
            told(ids.numel())
    for key in [unit.key for unit in maps.units if unit.key in sums]:
        yield key, *sums.pop(key).site(rank, energy)


def measure(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    rank: int = RANK,
    energy: float = ENERGY,
    batch_size: int = BATCH_SIZE,
    group_bytes: int = GROUP_BYTES,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total, what: None,
) -> Calibration:
    """Calibrates a live model in memory.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        sequences: token ids of each row.
        rank, energy: eigenpairs of each moment: the fewest that hold `energy` of the trace, at most `rank`.
        batch_size: rows in a batch at most.
        group_bytes: sums that are held at a time.
        facts: what the calibration says of itself.
        progress: told (tokens done, tokens in all passes, what is being done).
    """
    maps, stored, sites = survey(model, first_tokens(sequences)), dict[str, torch.Tensor](), dict[str, Site]()
    groups, tokens = maps.groups(group_bytes), sum(map(len, sequences))
    for number, group in enumerate(groups):
        done = _Counter(number * tokens, len(groups) * tokens, progress)
        for key, site, tensors in collect(
            model, sequences, maps, group, rank=rank, energy=energy, batch_size=batch_size, told=done.add
        ):
            sites[key] = site
            stored |= {f"{key}.{what}": tensor for what, tensor in tensors.items()}
    return Calibration(facts or {}, sites, tensors_of(maps, sites), stored.__getitem__)


class _Counter:
    def __init__(self, done: int, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = done, total, progress

    def add(self, tokens: int) -> None:
        self._done += tokens
        self._progress(self._done, self._total, "calibrating")
