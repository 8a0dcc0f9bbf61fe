"""Deltas without what calibration rows would see: which projection each tensor of a merge gets, and its passes over it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch

from mergetool.activations.artifact import Calibration
from mergetool.architecture.reading import reading_of
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.rows import Rows, following
from mergetool.config.sources import resolve_source
from mergetool.errors import CheckpointError
from mergetool.merge.plan import Plan, TensorPlan, Term
from mergetool.merge.vocabulary import Vocabulary
from mergetool.ops.blocks import ReadBlock, spans
from mergetool.ops.projection import Factor, Rule, rule_of
from mergetool.ops.projector import Projector, block_rows

_FACTORS = 12
"""Factors that are held at a time: tensors that read one input follow one another."""


def calibration_of(plan: Plan, progress: Callable[[int, int, str], None] | None = None) -> Calibration | None:
    """The calibration that a merge needs, made now where it is to be made of rows; None for a method that needs none.

    Raises:
        CheckpointError: it is of another model than the base.
    """
    entry = plan.recipe.calibration
    if plan.method is None or not plan.method.projects or entry is None:
        return None
    assert plan.recipe.base_model is not None  # a method of deltas has one
    return entry.obtain(resolve_source(plan.recipe.base_model, "."), progress)


def rules_of(tensors: Iterable[TensorPlan]) -> list[Rule]:
    """Every projection that some tensor of a plan asks for."""
    return list(dict.fromkeys(rule_of(term.options) for tensor in tensors for term in tensor.terms))


def shapes_of(tensors: Iterable[TensorPlan], vocabulary: Vocabulary | None) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the tensors that a calibration must fit: those that are shown with other rows do not show their own."""
    moved = frozenset() if vocabulary is None else vocabulary.names
    return [(tensor.name, tensor.shape) for tensor in tensors if tensor.floating and tensor.name not in moved]


def weights_of(layout: Layout) -> dict[str, tuple[str, int]]:
    """Tensor on disk -> the weight in memory that it is or is a part of, and the place of its first entry there."""
    reading = reading_of(layout)
    if reading is None:
        return {}
    found = {name: (weight, 0) for name, weight in reading.live.items()}
    for weight in reading.fused:
        for run in reading.runs(weight) or ():
            found.setdefault(run.name, (weight, run.at))
    return found


class Projections:
    """The projectors of one merge. Threads share it.

    Args:
        calibration: of the base.
        base: the base's layout, whose names the merge goes by.
        device: where the arithmetic happens.
        vocabulary: tensor -> the rows that the base is shown with where these are not its own.
    """

    def __init__(
        self, calibration: Calibration, base: Layout, device: str = "cpu", vocabulary: Mapping[str, Rows] | None = None
    ) -> None:
        self._calibration, self._base, self._device = calibration, base, torch.device(device)
        self._vocabulary = vocabulary or {}
        self._held: OrderedDict[tuple[Rule, str], Factor | None] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, plan: Plan, calibration: Calibration, device: str = "cpu") -> Projections:
        """Those of a plan, by a calibration of its base."""
        vocabulary = None if plan.vocabulary is None else plan.vocabulary.rows[plan.sidecar]
        return cls(calibration, plan.sources[plan.sidecar].layout, device, vocabulary)

    def projector(self, tensor: TensorPlan, rule: Rule) -> Projector:
        """F_P of one tensor. Where its rows are shown by other words than the base has, a row's share follows its word, and of
        a word that the base lacks all of the delta is left.

        Raises:
            CheckpointError: the calibration knows it as a part of another tensor, in a way that is not followed here.
        """
        with self._lock:
            held = _Held(self._held, rule, self._device)
            if (rows := self._vocabulary.get(tensor.name)) is not None and not rule.identity:
                found = self._calibration.projector(tensor.name, rows.stored.shape, rule, held)
                return replace(found, shape=tensor.shape, rows=tuple(_shown(one, rows) for one in found.rows))
            if tensor.name in self._calibration or rule.identity:
                return self._calibration.projector(tensor.name, tensor.shape, rule, held)
            whole = self._whole.get(tensor.name)
            if whole is None:
                return self._calibration.projector(tensor.name, tensor.shape, rule, held)
            return self._part(tensor, *whole, rule, held)

    @cached_property
    def _whole(self) -> dict[str, tuple[str, int]]:
        """`weights_of` the base, of those weights that the calibration knows."""
        return {name: place for name, place in weights_of(self._base).items() if place[0] in self._calibration}

    def _part(self, tensor: TensorPlan, weight: str, at: int, rule: Rule, held: Any) -> Projector:
        """The projector of a tensor that is one matrix of a stack in memory, or rows of one."""
        known = self._calibration.tensors[weight]
        if known.shape == tensor.shape:
            return self._calibration.projector(weight, tensor.shape, rule, held)
        whole = self._calibration.projector(weight, known.shape, rule, held)
        if len(tensor.shape) != 2 or tensor.shape[1] != whole.width or any(whole.rows):
            raise CheckpointError(
                f"{self._calibration.label} knows '{tensor.name}' as a part of '{weight}' that it cannot be cut from",
                "save the models in memory's own names: save_pretrained(..., save_original_format=False)",
            )
        matrix = at // (whole.height * whole.width)
        return Projector(tensor.shape, (whole.columns[matrix % len(whole.columns)],), scale=whole.scale)


def _shown(side: Factor | None, rows: Rows) -> Factor | None:
    return None if side is None or side.diagonal is None else side._replace(diagonal=following(side.diagonal, rows, 1.0))


class _Held(dict[str, Factor | None]):
    """The factors of one rule among those that are held of all; the oldest go as new ones come."""

    def __init__(self, held: OrderedDict[tuple[Rule, str], Factor | None], rule: Rule, device: torch.device) -> None:
        super().__init__()
        self._all, self._rule, self._device = held, rule, device

    def __contains__(self, key: object) -> bool:
        return (self._rule, key) in self._all

    def __getitem__(self, key: str) -> Factor | None:
        self._all.move_to_end((self._rule, key))
        return self._all[self._rule, key]

    def __setitem__(self, key: str, value: Factor | None) -> None:
        self._all[self._rule, key] = None if value is None else value.to(self._device)
        while len(self._all) > _FACTORS:
            self._all.popitem(last=False)


class ProjectedDelta(NamedTuple):
    """F_P of one delta: blocks of whole rows, and any block.

    Attributes:
        apply_: (fp32 entries of the delta that are whole rows, the first one's flat index) in place.
        read: gives any block of it, newly made or in the reader's buffer.
    """

    apply_: Callable[[torch.Tensor, int], None]
    read: ReadBlock


def rows_of(tensor: TensorPlan) -> int:
    """Entries that a projection should be given together: the rows of one matrix product."""
    width = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    height = tensor.shape[-2] if len(tensor.shape) > 1 else tensor.numel
    return width * min(block_rows(torch.device("cpu"), width), max(height, 1))


def projected(
    projections: Projections, tensor: TensorPlan, term: Term, read: ReadBlock, options: Mapping[str, Any]
) -> ProjectedDelta:
    """A delta's projection; where P mixes rows, all of the delta is read once for it.

    Args:
        projections: of the merge.
        tensor, term: which delta.
        read: gives its blocks.
        options: which projection.
    """
    projector = projections.projector(tensor, rule_of(options))
    width, swept = projector.width, projector.sweep() if projector.sweeps else []
    if swept:
        step = block_rows(swept[0].device)
        for first, stop in spans(tensor.numel // width, step):
            projector.sweep_(swept, read(first * width, stop * width).view(-1, width), first)

    def apply_(x: torch.Tensor, start: int) -> None:
        if not projector.identity:
            projector.project_(x.view(-1, width), start // width, swept)

    def block(start: int, stop: int) -> torch.Tensor:
        if projector.identity:
            return read(start, stop)
        first, last = start // width * width, -(-stop // width) * width
        whole = read(first, last)
        apply_(whole, first)
        return whole[start - first : stop - first]

    return ProjectedDelta(apply_, block)
