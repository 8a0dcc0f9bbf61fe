"""The figure of docs/null-space.md: what is taken from an update, in two dimensions and in a real layer.

python -m tools.null_space_figure docs/img/null-space.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np


def left(axes: object) -> None:
    """Inputs of two numbers that nearly lie on a line, one row of an update, and what the soft projection leaves of it."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 2)) @ np.array([[1.5, 0.9], [-0.12, 0.2]])
    second = inputs.T @ inputs / len(inputs)
    update = np.array([1.1, 1.6])
    axes.scatter(*inputs.T, s=9, color="#b9c4d0", label="calibration inputs x")
    for strength, colour in ((None, "#c2410c"), (0.1, "#0f766e")):
        what = update
        if strength is not None:
            floor = strength * np.trace(second) / 2
            what = update @ (floor * np.linalg.inv(second + floor * np.eye(2)))
        label = "a row of the update Δ" if strength is None else "Δ·P: nearly orthogonal to the inputs"
        axes.annotate("", what, (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.2})
        axes.plot([], [], color=colour, lw=2.2, label=label)
    axes.set_xlim(-4.2, 4.2)
    axes.set_ylim(-3.2, 3.2)
    axes.set_aspect("equal")
    axes.set_title("Two inputs: the part that they would see goes", fontsize=10)
    axes.legend(fontsize=8, loc="lower right", frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])


def right(axes: object) -> None:
    """The eigenvalues of one layer's inputs on skill rows of the lab, and the share of an update that is left along each."""
    from mergetool.activations import calibrate
    from mergetool.lab import lab_path
    from mergetool.ops.projection import Rule, shares

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "c.safetensors"
        made = calibrate(lab_path("sft"), lab_path("skills_train"), out, rank=1000, energy=1.0, limit=512).calibration
        known = made.tensors["model.layers.2.mlp.up_proj.weight"]
        moments = made.moments(known.columns[0] or "")
    place = np.arange(1, moments.values.numel() + 1)
    axes.semilogy(place, moments.values.numpy() / moments.trace, color="#64748b", lw=1.6)
    axes.set_ylabel("share of the inputs' energy", color="#64748b", fontsize=9)
    axes.set_xlabel("eigenvector of the second moment, largest first", fontsize=9)
    other = axes.twinx()
    for strength, colour in ((1, "#0f766e"), (3, "#2dd4bf"), (10, "#a7f3d0")):
        other.plot(
            place, 1 - shares(moments, Rule(strength=strength)).numpy(), color=colour, lw=2, label=f"strength {strength}"
        )
    other.set_ylim(0, 1.02)
    other.set_ylabel("share of the update that is left", color="#0f766e", fontsize=9)
    other.legend(fontsize=8, loc="center right", frameon=False)
    axes.set_title("A layer of the lab (mlp.up_proj, layer 2) on skill rows", fontsize=10)


def main() -> None:
    """The command line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 4), layout="constrained")
    left(axes[0])
    right(axes[1])
    figure.savefig(parser.parse_args().out, dpi=130)


if __name__ == "__main__":
    main()
