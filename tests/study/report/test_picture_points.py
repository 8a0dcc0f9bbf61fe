"""Which points a line joins, and how far a bar reaches."""

import pytest

from mergetool.study.report.picture_points import bar_of, points_of, polylines
from mergetool.study.report.style import what_bars_are


def test_lines_join_k_in_its_order_and_a_training_from_sft_to_its_end_and_no_trials(summary):
    joined = [[point.group.name for point in line] for line in polylines(points_of(summary, "test"))]
    assert joined == [["o K=1", "o K=10", "o K=total"], ["sft", "run step=4", "run step=30", "run"]]


def test_a_bar_is_the_spread_over_seeds_or_the_interval_over_rows(summary):
    seeds, one = (summary.group(name).scores["test"]["skills.nll"] for name in ("o K=1", "run"))
    assert bar_of(seeds) == (seeds.sd, seeds.sd)
    assert bar_of(one) == pytest.approx((0.1, 0.2))
    assert "thin bars of one seed: 95 % over rows" in what_bars_are(summary)
