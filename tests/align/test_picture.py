"""The picture has a curve for each number that the log holds and the algorithm names, and one bar a layer."""

from __future__ import annotations

import pytest

from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.picture import draw


@pytest.mark.parametrize(
    ("algorithm", "more", "curves"), [("dpo", "rewards/margins", 2), ("grpo", "reward", 2), ("sft", "rewards/margins", 1)]
)
def test_what_the_algorithm_logs_is_drawn(tmp_path, monkeypatch, algorithm: str, more: str, curves: int) -> None:
    from matplotlib.figure import Figure

    titles = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: titles.extend(x.get_title() for x in self.axes) or save(self, *a, **k)
    )
    log = [{"step": step, "loss": 1.0 / step, more: 0.1 * step} for step in (1, 2, 3)]
    draw(tmp_path / "training.png", log, {"layer 0": 0.1, "layer 1": 0.2}, ALGORITHMS[algorithm].logged, "a run")
    assert len(titles) == curves + 1
    assert titles[0] == "loss"
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
