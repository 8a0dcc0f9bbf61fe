"""A figure that cannot be drawn is said before anything runs."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import check_study
from tests.study import tiny


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        ({"over": "densty"}, "did you mean 'density'"),
        ({"over": "every"}, "no candidate sweeps 'every'"),
        ({"over": "density", "metrics": ["skills.nl"]}, "did you mean 'skills.nll'"),
        ([{"over": "density"}, {"over": "density"}], "two figures over 'density'"),
        ({"of": "density"}, "figure"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_said_in_one_line(folder, figure, says):
    with pytest.raises(MergetoolError) as caught:
        check_study(tiny.study(folder, figure=figure))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
