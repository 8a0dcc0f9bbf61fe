"""Reads a model with an adapter on top: what `lora` found out is computed a few rows at a time, and never written out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod
from pathlib import Path

import torch

from mergetool.checkpoint.adapter import Change, Factors
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.pickled import load_mapped
from mergetool.checkpoint.principal import principal_part
from mergetool.checkpoint.reader import Reader

_AT_ONCE = 1 << 20  # entries; whole columns need a pass over all rows
_Pair = tuple[torch.Tensor, torch.Tensor]


class AdaptedReader(Reader):
    """A reader that gives the adapted tensors, in fp32: W + s·B·A is not rounded before it is merged."""

    def __init__(self, layout: Layout, base: Reader, places: dict[Path, Path] | None = None) -> None:
        super().__init__(layout, places)
        assert layout.adapter is not None
        self._base = base  # the reader of the model without the adapter
        self._adapter = layout.adapter
        self._own = threading.local()
        self._lock = threading.Lock()
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._kept: dict[tuple[str, str], _Pair] = {}
        self._states: dict[Path, dict[str, torch.Tensor]] = {}

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Flat elements [start, stop): fp32 where the adapter adds to them, else in the stored dtype."""
        if stop <= start:
            return self._base.block(name, start, stop)
        if name in self._adapter.parts:
            return self._part(name, start, stop)
        change = self._adapter.changes.get(name)
        if change is None:
            return self._base.block(name, start, stop)
        return self._summed(name, change, start, stop) if change.magnitude is None else self._dora(name, change, start, stop)

    def tensor(self, name: str) -> torch.Tensor:
        """The whole adapted tensor."""
        info = self._info(name)
        return self.block(name, 0, info.numel).view(info.shape)

    def release(self, file: Path) -> None:
        """Forget one file; nothing may be reading it."""
        self._base.release(file)
        super().release(file)

    def close(self) -> None:
        """Forget the maps, the base's too."""
        self._base.close()
        self._kept.clear()
        self._states.clear()
        super().close()

    def factors(self, name: str, factors: Factors, expert: int = 0) -> _Pair:
        """(left, right) in fp32 with ΔW = scale·left·right as the weight is stored; kept while one tensor is walked."""
        if getattr(self._own, "of", None) != (name, expert):
            a, b = self._whole(factors.a).float(), self._whole(factors.b).float()
            if factors.experts > 1:
                a = a.view(factors.experts, factors.rank, -1)[expert]
                b = b.view(len(b), factors.rank, factors.experts)[:, :, expert].contiguous()
            a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
            self._own.pair = (a.T.contiguous(), b.T.contiguous()) if factors.transposed else (b, a)
            self._own.of = (name, expert)
        return self._own.pair

    def _stored(self, info: TensorInfo, start: int, stop: int) -> torch.Tensor:
        """Flat elements of a tensor of the adapter."""
        if info.file.suffix == ".bin":
            if info.file not in self._states:
                self._states[info.file] = load_mapped(info.file)
            return self._states[info.file][info.name].reshape(-1)[start:stop]
        return self._flat(info, start, stop)

    def _whole(self, info: TensorInfo) -> torch.Tensor:
        return self._stored(info, 0, info.numel).view(info.shape)

    def _part(self, name: str, start: int, stop: int) -> torch.Tensor:
        """A tensor that holds some entries of an adapted weight."""
        weight, runs = self._adapter.parts[name]
        change, out = self._adapter.changes[weight], self._base.block(name, start, stop).to(torch.float32, copy=True)
        assert change.factors is not None
        for run in runs:
            first, last = max(start, run.start), min(stop, run.start + run.numel)
            if first < last:
                moved = run.at - run.start
                out[first - start : last - start] += self._delta(weight, change, change.factors, first + moved, last + moved)
        return out

    def _summed(self, name: str, change: Change, start: int, stop: int) -> torch.Tensor:
        """All of a change but for the norms of rows."""
        if change.replaced is None:
            base = self._base.block(name, start, stop)
        else:
            base = self._stored(change.replaced, start, stop)
        if change.rows is not None:
            base = self._with_rows(base, change, start)
        if change.principal is not None:
            left, right = self._once_only(name, "principal", lambda: self._principal(name, change))
            base = (base.float() - _product(left, right, start, stop)).to(base.dtype)  # PEFT trains on it as it is stored
        if change.factors is not None:
            return self._delta(name, change, change.factors, start, stop).add_(base)
        if change.added is not None:
            info, scale = change.added
            return self._stored(info, start, stop).float().mul(scale).add_(base)
        return base

    def _delta(self, name: str, change: Change, factors: Factors, start: int, stop: int) -> torch.Tensor:
        """Flat elements of s·B·A."""
        each = prod(change.shape) // factors.experts
        parts = []
        for expert in range(start // each, -(-stop // each)):
            left, right = self.factors(name, factors, expert)
            first, last = max(start - expert * each, 0), min(stop - expert * each, each)
            parts.append(_product(left, right, first, last).mul_(factors.scale))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _with_rows(self, base: torch.Tensor, change: Change, start: int) -> torch.Tensor:
        assert change.rows is not None
        (info, rows), width = change.rows, change.shape[-1]
        out = base.to(torch.promote_types(base.dtype, info.dtype), copy=True)
        for i, row in enumerate(rows):
            first, last = max(row * width, start), min((row + 1) * width, start + len(out))
            if first < last:
                own = self._stored(info, i * width + first - row * width, i * width + last - row * width)
                out[first - start : last - start] = own
        return out

    def _principal(self, name: str, change: Change) -> _Pair:
        assert change.factors is not None
        assert change.principal is not None
        whole = self._base.block(name, 0, prod(change.shape)).float().view(change.shape)
        return principal_part(whole, change.principal, change.factors.rank, change.factors.scale)

    def _dora(self, name: str, change: Change, start: int, stop: int) -> torch.Tensor:
        """The sum with its rows, or its columns where it is stored transposed, given the norms that were trained."""
        assert change.factors is not None
        rows, width = change.shape[0], prod(change.shape[1:])
        first, last = start // width, -(-stop // width)
        summed = self._summed(name, change, first * width, last * width).view(-1, width)
        if change.factors.transposed:
            factor, _ = self._once_only(name, "norms", lambda: self._column_factors(name, change, rows, width))
            summed = summed * factor
        else:
            assert change.magnitude is not None
            magnitude = self._stored(change.magnitude, first, last).float()
            summed = (magnitude / torch.linalg.norm(summed, dim=1)).view(-1, 1) * summed
        return summed.view(-1)[start - first * width : stop - first * width]

    def _column_factors(self, name: str, change: Change, rows: int, width: int) -> _Pair:
        assert change.magnitude is not None
        squares, step = torch.zeros(width, dtype=torch.float64), max(_AT_ONCE // width, 1)
        for row in range(0, rows, step):
            block = self._summed(name, change, row * width, min(row + step, rows) * width).view(-1, width)
            squares += block.double().square().sum(0)
        factor = self._whole(change.magnitude).float().view(-1) / squares.sqrt().float()
        return factor, factor

    def _once_only(self, name: str, what: str, make: Callable[[], _Pair]) -> _Pair:
        """What a whole tensor must be looked at for; no two threads compute it."""
        with self._lock:
            lock = self._locks.setdefault((name, what), threading.Lock())
        with lock:
            if (name, what) not in self._kept:
                self._kept[name, what] = make()
            return self._kept[name, what]


def _product(left: torch.Tensor, right: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Flat elements [start, stop) of left·right."""
    columns = right.shape[1]
    first, last = start // columns, -(-stop // columns)
    return (left[first:last] @ right).view(-1)[start - first * columns : stop - first * columns]
