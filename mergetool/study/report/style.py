"""What the pictures and the report share: colours, markers, and the names of axes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mergetool.study.analysis.choose import Summary
from mergetool.study.recipe.columns import Column

# Okabe and Ito's colours, told apart with any kind of colour vision; each has a marker too. Yellow is left out: it is
# not seen on white. Black is for what everything is compared with.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#6A3D9A")
MARKERS = ("o", "s", "^", "D", "v", "P", "h", "<", ">")  # one more than colours: the pair stays unique for 72 families
MODELS = {"sft": ("*", "SFT"), "base": ("p", "base"), "rlhf": ("X", "RLHF")}
MODEL_COLOURS = ("black", "#666666")
DPI = 120


def colours(summary: Summary) -> dict[str, tuple[str, str]]:
    """Colour and marker of each family, the same in every picture and in the report."""
    families = [one.family for one in summary.groups if one.name not in MODELS and one.name != summary.rlhf]
    return {
        family: (COLOURS[at % len(COLOURS)], MARKERS[at % len(MARKERS)]) for at, family in enumerate(dict.fromkeys(families))
    }


def axis_title(column: Column) -> str:
    """`reward margin on chat (nats)`."""
    entry = column.name.rpartition(".")[0]
    return (
        f"{column.metric.short} on {entry} ({column.metric.unit})"
        if entry != column.metric.name
        else f"{column.metric.short} ({column.metric.unit})"
    )


def what_bars_are(summary: Summary) -> str:
    """The words for the bars: spread over seeds, and where there is one seed the interval over rows."""
    seeds = {len(group.members) for group in summary.groups if not group.is_model}
    of_rows = "95 % interval of the difference from SFT, row by row" if summary.differences.get("test") else "95 % over rows"
    if seeds <= {1}:
        return f"thin bars: {of_rows}"
    several = f"mean of up to {max(seeds)} seeds, bars ± one standard deviation"
    return several + (f"; thin bars of one seed: {of_rows}" if 1 in seeds else "")


@contextmanager
def canvas(path: Path, size: tuple[float, float], panels: int = 1) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, in our style; written to `path` when the block ends well."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}):
        figure, axes = plt.subplots(1, panels, figsize=size, dpi=DPI, layout="constrained")
        try:
            yield figure, axes
            figure.savefig(path, dpi=DPI)
        finally:
            plt.close(figure)
