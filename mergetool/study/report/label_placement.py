"""Text beside points without overlap: pure geometry, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""left, bottom, right, top."""


@dataclass(frozen=True)
class Label:
    """Where a text goes.

    Attributes:
        at: index of the text.
        box: what it covers.
        far: whether it lies so far from its point that a line should join them.
    """

    at: int
    box: Box
    far: bool


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    order: Sequence[int],
    inside: Box,
    markers: Sequence[float],
    taken: Sequence[Box] = (),
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> list[Label]:
    """Finds a free position for each text, near its point if there is one.

    Args:
        points: of all markers; no text may cover one.
        sizes: width and height of each text; texts belong to the points of the same index.
        order: indices, the most important first; who comes late may find no position and is left out.
        inside: no text leaves this box.
        markers: half the size of each marker.
        taken: boxes that are not free, the legend for one.
        lines: segments that a text should rather not cover; it may where nothing else is free.

    Returns:
        The texts that found a position.
    """
    covered = [(x - half, y - half, x + half, y + half) for (x, y), half in zip(points, markers, strict=True)]
    used: list[Box] = list(taken)
    found: list[Label] = []
    for at in order:
        best: tuple[float, Box, bool] | None = None
        for cost, box, far in _positions(points[at], sizes[at], markers[at]):
            if best is not None and cost >= best[0]:
                continue  # whatever it crosses, it will not be cheaper
            if not _within(box, inside) or any(_overlap(box, other) for other in used):
                continue
            if any(_overlap(box, other) for other in covered):
                continue
            cost += 6.0 * sum(_crosses(box, *line) for line in lines)
            if best is None or cost < best[0]:
                best = (cost, box, far)
        if best is not None:
            used.append(best[1])
            found.append(Label(at, best[1], best[2]))
    return found


def _positions(point: tuple[float, float], size: tuple[float, float], marker: float) -> list[tuple[float, Box, bool]]:
    """(cost, box, far) of the positions around a point, the dearest last: right and above are read most easily."""
    x, y = point
    width, height = size
    found = []
    for ring, gap in enumerate((marker + 2, marker + 9, marker + 18, marker + 30, marker + 44)):
        for turn in range(16):
            angle = turn * math.pi / 8
            dx, dy = math.cos(angle), math.sin(angle)
            centre_x = x + dx * (gap + width / 2)
            centre_y = y + dy * (gap + height / 2)
            box = (centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
            cost = 4.0 * ring + (1.5 - dx - 0.5 * dy)
            found.append((cost, box, ring > 1))
    return sorted(found, key=lambda position: position[0])


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _within(box: Box, outer: Box) -> bool:
    return box[0] >= outer[0] and box[1] >= outer[1] and box[2] <= outer[2] and box[3] <= outer[3]


def _crosses(box: Box, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Whether a segment passes through a box (Liang-Barsky)."""
    low, high = 0.0, 1.0
    dx, dy = end[0] - start[0], end[1] - start[1]
    for delta, near, far in ((dx, box[0] - start[0], box[2] - start[0]), (dy, box[1] - start[1], box[3] - start[1])):
        if abs(delta) < 1e-12:
            if near > 0 or far < 0:
                return False
            continue
        first, second = sorted((near / delta, far / delta))
        low, high = max(low, first), min(high, second)
        if low > high:
            return False
    return True
