"""A word stands to the right of every number; decades are logarithmic."""

from mergetool.study.report.setting_curves import _spans_decades, _spelled, _ticks


def test_a_word_stands_to_the_right_of_every_number_and_decades_are_logarithmic():
    ticks = _ticks(["total", 1, 25, 5])
    assert list(ticks) == [1, 5, 25, "total"]
    assert ticks["total"] == 50
    assert _spans_decades(ticks)
    assert not _spans_decades(_ticks([0.3, 0.5, 1.0]))
    assert not _spans_decades(_ticks([0.0, 0.5, 1.0]))
    assert [_spelled(value) for value in (5e-4, 1e-6, 0.005, 25, "total")] == ["5·10⁻⁴", "10⁻⁶", "0.005", "25", "total"]
