"""Embeddings and heads read in another order of rows: a model shown as if its vocabulary were another one's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.reader import Reader

ZERO = -1
_SUM_ROWS = 4096


@dataclass(frozen=True)
class Loan:
    """A row that is not the model's own: the mean of rows of other models.

    Attributes:
        rows: (which lender, the tensor's name there, the row) of each.
    """

    rows: tuple[tuple[int, str, int], ...]


@dataclass(frozen=True)
class Rows:
    """Which rows a tensor is shown with.

    Attributes:
        taken: for each row that is shown, the tensor's own row; `ZERO`; or −2 − i for the i-th loan.
        loans: rows of other models.
        mean: how many of the last rows are the mean of all rows before them.
        stored: the tensor's own header.
    """

    taken: np.ndarray = field(repr=False)
    loans: tuple[Loan, ...]
    mean: int
    stored: TensorInfo


def as_shown(layout: Layout, rows: Mapping[str, Rows]) -> Layout:
    """The layout of a model whose tensors are shown with other rows than they have.

    The bytes in the files stay what they are: the readers below a `RowsReader` read by them.
    """
    tensors = {
        name: replace(info, shape=with_rows(info.shape, len(rows[name].taken) + rows[name].mean)) if name in rows else info
        for name, info in layout.tensors.items()
    }
    return replace(layout, tensors=tensors)


def as_stored(layout: Layout, rows: Mapping[str, Rows]) -> Layout:
    """What `as_shown` was given."""
    return replace(layout, tensors={n: rows[n].stored if n in rows else info for n, info in layout.tensors.items()})


def following(values: torch.Tensor, rows: Rows, missing: float) -> torch.Tensor:
    """Numbers of a tensor's own rows, for the rows that it is shown with; `missing` for those that are not its own."""
    taken = torch.from_numpy(rows.taken)
    own = taken >= 0
    found = values.new_full((len(taken) + rows.mean,), missing)
    found[: len(taken)][own] = values[taken[own]]
    return found


def row_count(shape: tuple[int, ...]) -> int:
    """How many words a tensor has rows for; a bias of shape (1, words) is a column of them."""
    return shape[1] if len(shape) == 2 and shape[0] == 1 else shape[0]


def with_rows(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape with rows for `count` words."""
    return (1, count) if len(shape) == 2 and shape[0] == 1 else (count, *shape[1:])


class RowsReader(Reader):
    """Gives tensors with their rows rearranged, on top of any other reader.

    Args:
        layout: what is shown.
        rows: by tensor.
        own: the reader of the model as it is stored.
        lend: opens the reader of a lender of this model's, once.
    """

    def __init__(self, layout: Layout, rows: Mapping[str, Rows], own: Reader, lend: Callable[[int], Reader]) -> None:
        super().__init__(layout)
        self._rows, self._own, self._lend = rows, own, lend
        self._means: dict[str, torch.Tensor] = {}

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Flat elements [start, stop) of the tensor as it is shown; fp32 where its rows are rearranged."""
        rows = self._rows.get(name)
        if rows is None:
            return self._own.block(name, start, stop)
        width = self._info(name).numel // (len(rows.taken) + rows.mean)
        first, last = start // width, -(-stop // width)
        found = self._read(name, rows, width, first, last)
        return found.view(-1)[start - first * width : stop - first * width]

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor as it is shown."""
        info = self._info(name)
        return self.block(name, 0, info.numel).view(info.shape)

    def _read(self, name: str, rows: Rows, width: int, first: int, last: int) -> torch.Tensor:
        out = torch.zeros(last - first, width)
        taken = rows.taken[first:last]
        cuts = (np.flatnonzero(np.diff(taken) != 1) + 1).tolist()  # runs of rows that lie one behind the other are read at once
        for begin, end in zip([0, *cuts], [*cuts, len(taken)], strict=True):
            if begin == end:
                continue
            row = int(taken[begin])
            if row >= 0:
                block = self._own.block(name, row * width, (row + end - begin) * width)
                out[begin:end] = block.view(end - begin, width)
                continue
            for at in range(begin, end):  # negative ones are no rows: −3 and −2 are no run
                if (one := int(taken[at])) >= 0:
                    out[at] = self._own.block(name, one * width, (one + 1) * width)
                elif one != ZERO:
                    out[at] = self._borrowed(rows.loans[-2 - one], width)
        if last > len(rows.taken):
            out[max(len(rows.taken) - first, 0) :] = self._mean(name, rows, width)
        return out

    def _borrowed(self, loan: Loan, width: int) -> torch.Tensor:
        total = torch.zeros(width)
        for lender, name, row in loan.rows:
            total += self._lend(lender).block(name, row * width, (row + 1) * width)
        return total / len(loan.rows)

    def _mean(self, name: str, rows: Rows, width: int) -> torch.Tensor:
        """The mean of all rows but the padding, always summed in the same order."""
        if name not in self._means:
            total = torch.zeros(width, dtype=torch.float64)
            for first in range(0, len(rows.taken), _SUM_ROWS):
                last = min(first + _SUM_ROWS, len(rows.taken))
                total += self._read(name, rows, width, first, last).to(torch.float64).sum(0)
            self._means[name] = (total / len(rows.taken)).to(torch.float32)
        return self._means[name]

    def release(self, file: Path) -> None:
        """Forget one file; nothing may be reading it."""
        self._own.release(file)

    def close(self) -> None:
        """Forget the maps."""
        self._own.close()
