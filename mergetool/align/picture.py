"""One picture of a run: the loss, what the algorithm logs beside it, and how far each layer is from the SFT model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mergetool.align.algorithms import Logged

BLUE, ORANGE, GREY = "#2563a8", "#d9772b", "#6b7280"


def draw(
    path: Path,
    log: list[dict[str, Any]],
    layers: dict[str, float],
    logged: Sequence[Logged],
    title: str,
    written: int | None = None,
) -> None:
    """Writes a PNG.

    Args:
        path: of the file.
        log: the trainer's log history.
        layers: norm of theta - theta_s by part of the model.
        logged: what the algorithm logs beside the loss.
        title: of the picture.
        written: the step whose weights were written, where it is not the last; a line marks it.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = [
        ("loss", "loss"),
        *((one.key, one.title) for one in logged if one.title),
        ("drift", "distance to the SFT model"),
        ("merged_total", "part of the SFT delta merged"),
    ]
    shown = [(key, label) for key, label in curves if any(key in line for line in log)]
    with rc_context({"text.parse_math": False}):  # a dollar sign in a name is one
        figure = Figure(figsize=(4.2 * (len(shown) + 1), 3.4), layout="constrained")
        FigureCanvasAgg(figure)  # no pyplot: a picture must not touch the program's own figures or display
        axes = figure.subplots(1, len(shown) + 1, squeeze=False)[0]
        for axis, (key, label) in zip(axes, shown, strict=False):
            for prefix, colour, name in (("", BLUE, "training"), ("eval_", ORANGE, "evaluation")):
                points = sorted({line["step"]: line[prefix + key] for line in log if prefix + key in line}.items())
                if points:
                    axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
            axis.set(xlabel="step", title=label)
            if written is not None:
                axis.axvline(written, color=GREY, linestyle=":", label="written")
            if key not in ("merged_total", "drift"):
                axis.legend(frameon=False)
        names = list(layers)
        axes[-1].barh(names, [layers[name] for name in names], color=GREY)
        axes[-1].invert_yaxis()
        axes[-1].tick_params(axis="y", labelsize=8 if len(names) < 20 else 5)
        axes[-1].set(title="distance to the SFT model, by layer")
        for axis in axes:
            axis.spines[["top", "right"]].set_visible(False)
        figure.suptitle(title)
        figure.savefig(path, dpi=120)
