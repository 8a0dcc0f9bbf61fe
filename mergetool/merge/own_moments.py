"""What the maps of each model of a merge read on that model's own rows: its calibration, and where a tensor is found in it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import torch

from mergetool.activations.artifact import Calibration
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.rows import Rows, following
from mergetool.errors import CheckpointError
from mergetool.merge.plan import Source, TensorPlan
from mergetool.merge.projected import weights_of
from mergetool.ops.projection import Moments
from mergetool.ops.regression import Shares, Side, Sides, shares

_HELD = 6
"""Shares that are held at a time: maps that read one input follow one another."""
Keys = tuple[str | None, ...]


class OwnMoments:
    """The calibrations of one merge, one for each of its models. Threads share it.

    Args:
        calibrations: in the models' order.
        sources: of the plan.
        device: where the arithmetic happens.
        vocabulary: for each source, tensor -> the rows that it is shown with where these are not its own.
    """

    lacking = "are in no calibration or not in all"

    def __init__(
        self,
        calibrations: Sequence[Calibration],
        sources: Sequence[Source],
        device: str = "cpu",
        vocabulary: Sequence[Mapping[str, Rows]] = (),
    ) -> None:
        self._calibrations, self._sources, self._device = calibrations, sources, torch.device(device)
        self._vocabulary, self._shown = vocabulary, dict[tuple[int, str], Rows]()
        self._held: OrderedDict[Any, Future[Shares | None]] = OrderedDict()
        self._parts: dict[int, dict[str, tuple[str, int]]] = {}
        self._lock = threading.Lock()

    def known(self, tensor: TensorPlan) -> Sides | None:
        """The inputs of a tensor's matrices; None where some model's are not known.

        Raises:
            CheckpointError: a calibration knows it as a part of another tensor, in a way that is not followed here.
        """
        found = [self._keys(i, tensor, term.source) for i, term in enumerate(tensor.terms)]
        known = [one for one in found if one is not None]
        if len(known) < len(found):
            return None
        columns, rows = (tuple(zip(*side, strict=True)) for side in zip(*known, strict=True)) if _alike(known) else ((), ())
        return Sides(tuple(map(self._side, columns)), tuple(map(self._side, rows)))

    def unknown(self, tensors: Sequence[TensorPlan]) -> list[str]:
        """The tensors of which the weighted mean is taken, since some model's calibration lacks them."""
        return [tensor.name for tensor in tensors if tensor.floating and self.known(tensor) is None]

    def _keys(self, i: int, tensor: TensorPlan, term_source: int) -> tuple[Keys, Keys] | None:
        """(columns, rows) of one model: keys of sites, by matrix; None where the calibration does not know the tensor."""
        calibration, source = self._calibrations[i], self._sources[term_source]
        if self._vocabulary and (rows := self._vocabulary[term_source].get(source.stored_name(tensor.name))) is not None:
            known = calibration.tensors.get(source.stored_name(tensor.name)) or calibration.tensors.get(tensor.name)
            self._shown |= {(i, key): rows for key in (known.rows if known else ()) if key is not None}
        for name in (tensor.name, source.stored_name(tensor.name)):
            if (known := calibration.tensors.get(name)) is not None:
                return (known.columns, known.rows) if known.columns or known.rows or known.constant else None
        parts = self._whole(i, source.layout)
        place = parts.get(tensor.name) or parts.get(source.stored_name(tensor.name))
        if place is None:
            return None
        known = calibration.tensors[place[0]]
        if known.shape == tensor.shape:
            return known.columns, known.rows
        if len(tensor.shape) != 2 or tensor.shape[1] != known.shape[-1] or known.rows:
            raise CheckpointError(
                f"{calibration.label} knows '{tensor.name}' as a part of '{place[0]}' that it cannot be cut from",
                "save the models in memory's own names: save_pretrained(..., save_original_format=False)",
            )
        matrix = place[1] // (known.shape[-1] * known.shape[-2])
        return ((known.columns[matrix % len(known.columns)],) if known.columns else (), ())

    def _whole(self, i: int, layout: Layout) -> dict[str, tuple[str, int]]:
        with self._lock:
            if i not in self._parts:
                found = weights_of(layout)
                self._parts[i] = {name: place for name, place in found.items() if place[0] in self._calibrations[i]}
            return self._parts[i]

    def _side(self, keys: Keys) -> Side:
        return partial(self._shares, keys)

    def _shares(self, keys: Keys, weights: tuple[float, ...], off_diagonal: float, anchor: int) -> Shares | None:
        asked = keys, weights, off_diagonal, anchor
        with self._lock:
            if mine := asked not in self._held:
                self._held[asked] = Future()
                if len(self._held) > _HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(asked)
            found = self._held[asked]
        if mine:
            try:
                moments = [None if key is None else self._moments(i, key) for i, key in enumerate(keys)]
                made = shares(moments, weights, off_diagonal, anchor)
                found.set_result(None if made is None else made.to(self._device))
            except BaseException as error:
                found.set_exception(error)
        return found.result()

    def _moments(self, i: int, key: str) -> Moments:
        """Of one model's site; of tokens, by the words that its rows are shown with: one that it lacks it has not read."""
        found, rows = self._calibrations[i].moments(key), self._shown.get((i, key))
        return found if rows is None else found._replace(values=following(found.values, rows, 0.0))


def _alike(known: Sequence[tuple[Keys, Keys]]) -> bool:
    """Whether the models' tensors are read in one way: as many matrices on each side."""
    return len({(len(columns), len(rows)) for columns, rows in known}) == 1
