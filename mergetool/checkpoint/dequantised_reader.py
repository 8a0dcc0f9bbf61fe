"""Reads codes as the numbers that they stand for: (code − zero point) · scale, in fp32, a few rows at a time.

Sources: as in `mergetool.checkpoint.dequantised`, which says how each weight is stored.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch

from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.quantised import Stored
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError

_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)  # E2M1, by code


class DequantisedReader(Reader):
    """Gives the weights of a quantised checkpoint in fp32, on top of the reader of the tensors on disk."""

    def __init__(self, layout: Layout, raw: Reader) -> None:
        super().__init__(layout)
        assert layout.dequantised is not None
        self._raw, self._made = raw, layout.dequantised

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Flat elements [start, stop): fp32 where they were codes, else in the stored dtype."""
        stored = self._made.stored.get(name)
        if stored is None:
            self._info(name)
            return self._raw.block(name, start, stop)
        columns = stored.shape[-1]
        first, last = start // columns, -(-stop // columns)
        rows = self._rows(name, stored, first, last)
        return rows.view(-1)[start - first * columns : stop - first * columns]

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor."""
        info = self._info(name)
        return self.block(name, 0, info.numel).view(info.shape)

    def release(self, file: Path) -> None:
        """Forget one file; nothing may be reading it."""
        self._raw.release(file)

    def close(self) -> None:
        """Forget the maps."""
        self._raw.close()

    def _rows(self, name: str, stored: Stored, first: int, last: int) -> torch.Tensor:
        """Rows [first, last) of all the matrices, one below the other, in fp32: (last − first, columns)."""
        columns, n = stored.shape[-1], last - first
        numbers = self._codes(name, stored, first, last)
        in_matrix = stored.shape[-2] if len(stored.shape) > 1 else 1
        at = torch.arange(first, last)
        at = at // in_matrix * stored.grid[0] + at % in_matrix // stored.block[0]  # each row's row of scales
        low, high = (int(at[0]), int(at[-1]) + 1) if n else (0, 0)
        scales = self._scales(stored, low, high)[at - low]
        zeros = self._zeros(stored, first, last, low, high, at)
        width = stored.block[1]
        if stored.grid[1] * width == columns:
            grouped = numbers.view(n, stored.grid[1], width)
            if zeros is not None:
                grouped.sub_(zeros.unsqueeze(-1))
            return grouped.mul_(scales.unsqueeze(-1)).view(n, columns)
        if zeros is not None:
            numbers.sub_(zeros.repeat_interleave(width, 1)[:, :columns])
        return numbers.mul_(scales.repeat_interleave(width, 1)[:, :columns])

    def _codes(self, name: str, stored: Stored, first: int, last: int) -> torch.Tensor:
        columns, n = stored.shape[-1], last - first
        if stored.kind == "byte":
            return self._raw.block(stored.codes, first * columns, last * columns).to(torch.float32).view(n, columns)
        if stored.kind == "fp4":
            half = columns // 2
            pairs = self._raw.block(stored.codes, first * half, last * half).view(torch.uint8).to(torch.int64)
            return torch.tensor(_FP4)[torch.stack([pairs & 15, pairs >> 4], -1)].view(n, columns)
        if stored.stated is not None:
            self._agree(name, stored)
        words = math.ceil(columns * stored.bits / 32)
        packed = self._raw.block(stored.codes, first * words, last * words).view(n, words)
        return unpacked(packed, stored.bits, 0, columns)

    def _scales(self, stored: Stored, low: int, high: int) -> torch.Tensor:
        """Rows [low, high) of the scales of all matrices, in fp32."""
        along = stored.grid[1]
        found = self._raw.block(stored.scale, low * along, high * along)
        if found.dtype == torch.uint8:  # an exponent, as OCP's E8M0
            return (found.to(torch.float32) - 127.0).exp2().view(-1, along)
        return found.to(torch.float32).view(-1, along)

    def _zeros(self, stored: Stored, first: int, last: int, low: int, high: int, at: torch.Tensor) -> torch.Tensor | None:
        """Each row's zero points, one for each of its scales, in fp32."""
        along = stored.grid[1]
        if stored.zero is None:
            return None
        if stored.kind != "packed":
            return self._raw.block(stored.zero, low * along, high * along).to(torch.float32).view(-1, along)[at - low]
        info = self._made.raw[stored.zero]
        words, in_matrix = info.shape[-2], stored.shape[-2]
        packed = self._raw.block(stored.zero, 0, info.numel).view(-1, words, along)
        found = []
        for matrix in range(first // in_matrix, -(-last // in_matrix)):
            begin, end = max(first - matrix * in_matrix, 0), min(last - matrix * in_matrix, in_matrix)
            found.append(unpacked(packed[matrix].T, stored.bits, begin, end).T)
        return torch.cat(found)

    def _agree(self, name: str, stored: Stored) -> None:
        assert stored.stated is not None
        said = self._raw.block(stored.stated, 0, self._made.raw[stored.stated].numel).tolist()
        if tuple(said) != stored.shape:
            raise CheckpointError(
                f"{self.layout.name}: '{stored.stated}' says {said}, but its codes and scales are {list(stored.shape)}",
                "fetch the checkpoint again",
            )


def unpacked(words: torch.Tensor, bits: int, start: int, stop: int) -> torch.Tensor:
    """Signed codes [start, stop) of each row of 32-bit words that hold them one behind the other, lowest bits first.

    Args:
        words: int32, shape (rows, ⌈codes·bits/32⌉).
        bits: of a code, 1 to 8.

    Returns:
        fp32, shape (rows, stop − start).
    """
    places = torch.arange(start, stop) * bits
    at, shift = places // 32, places % 32
    wide = words.to(torch.int64) & 0xFFFFFFFF
    after = (at + 1).clamp_(max=max(words.shape[1] - 1, 0))  # past the end nothing of it is read
    both = wide[:, at] | (wide[:, after] << 32)
    return ((both >> shift) & ((1 << bits) - 1)).sub_(1 << (bits - 1)).to(torch.float32)
