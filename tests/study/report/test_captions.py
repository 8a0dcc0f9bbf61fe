"""The legend names every family once, and each point's bars are lines that no text should cover."""

import matplotlib
import pytest

matplotlib.use("Agg")

from mergetool.study.report.captions import _bars, draw_legend
from mergetool.study.report.picture_points import bar_of, points_of


@pytest.fixture
def axes():
    from matplotlib import pyplot

    figure, axes = pyplot.subplots()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 4)
    yield axes
    pyplot.close(figure)


def test_the_legend_has_the_families_the_front_and_the_choice(summary, axes):
    draw_legend(axes, points_of(summary, "test"), summary, "test")
    texts = [text.get_text().split("  ")[0] for text in axes.get_legend().get_texts()]
    families = list(dict.fromkeys(one.family for one in summary.groups if not one.is_model))
    chosen = ["chosen on the validation rows"] if summary.choice.group else []
    assert texts == [*families, "Pareto front of these points", *chosen]


def test_bars_are_in_pixels_and_none_has_no_length(summary, axes):
    for point in points_of(summary, "test"):
        bars = _bars(axes, point)
        assert len(bars) == sum(any(bar_of(score)) for score in (point.x, point.y))
        for start, end in bars:
            assert start != end
            assert start[0] == pytest.approx(end[0]) or start[1] == pytest.approx(end[1])
