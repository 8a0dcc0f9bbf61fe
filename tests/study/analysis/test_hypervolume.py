"""The hypervolume is the area under the front, whatever order the points come in; SFT and RLHF alone cover nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergetool.study.analysis.hypervolume import Cover, corners, covers, hypervolume, shown_cover
from tests.study.lines import SCORES, outcome

NUMBER = st.integers(-20, 20).map(lambda whole: whole / 4)
POINTS = st.lists(st.tuples(NUMBER, NUMBER), max_size=12)


@given(POINTS, st.tuples(NUMBER, NUMBER))
def test_it_is_the_count_of_cells_that_some_point_covers(points, reference):
    """An independent way: the plane in cells of a quarter, each covered or not."""
    side = 0.25
    cells = sum(
        any(x >= reference[0] + side * (i + 1) and y >= reference[1] + side * (j + 1) for x, y in points)
        for i in range(41)
        for j in range(41)
    )
    clipped = [(min(x, reference[0] + 41 * side), min(y, reference[1] + 41 * side)) for x, y in points]
    assert hypervolume(clipped, reference) == pytest.approx(cells * side**2)


@given(POINTS)
def test_it_is_what_optuna_computes(points):
    np, optuna = pytest.importorskip("numpy"), pytest.importorskip("optuna._hypervolume")
    inside = [point for point in points if point[0] > -5 and point[1] > -5]
    theirs = optuna.compute_hypervolume(-np.array(inside).reshape(-1, 2), np.array([5.0, 5.0])) if inside else 0.0
    assert hypervolume(points, (-5.0, -5.0)) == pytest.approx(theirs)


def test_a_line_of_many_points_covers_half_the_box_and_the_ideal_point_all():
    line = [(at / 1000, 1 - at / 1000) for at in range(1001)]
    assert hypervolume(line, (0, 0)) == pytest.approx(0.5, abs=1e-3)
    assert hypervolume([(1, 1), *line], (0, 0)) == 1
    assert hypervolume([(0, 1), (1, 0)], (0, 0)) == 0


def test_the_box_is_between_sft_and_rlhf_and_each_family_is_measured_in_it(small_study):
    found = outcome(small_study, **SCORES)
    # accuracy 0.5 -> 0.7, nll 1.0 -> 2.0; nll is turned, less being better
    assert corners(found) == ((0.5, -2.0), (0.7, -1.0))
    by = {cover.family: cover for cover in covers(found)}
    assert list(by) == ["linear", "ties", ""]
    # w=0.5 has all the reward at no tax on the test rows; ties is worse than RLHF in tax there
    assert by["linear"].share == pytest.approx(1.0)
    assert by["ties"].area == 0
    assert by[""].area == by["linear"].area
    assert by["linear"].points == 2
    on_validation = {cover.family: cover.share for cover in covers(found, "validation")}
    assert on_validation["linear"] == pytest.approx((0.1 * 0.8 + 0.09 * 0.2) / 0.2)


def test_where_alignment_cost_nothing_there_is_an_area_and_no_share(small_study):
    for nll in (1.0, 0.9):
        found = outcome(small_study, **{**SCORES, "rlhf": ((0.7, 0, nll), (0.7, 0, nll))})
        assert {cover.share for cover in covers(found)} == {None}
        assert corners(found)[0] == (0.5, -1.0)


def test_a_share_is_written_with_its_spread():
    assert shown_cover(Cover("a", 2, 0.1, 0.617, 0.034)) == "62% ± 3"
    assert shown_cover(Cover("a", 2, 0.1234, None)) == "0.123"
