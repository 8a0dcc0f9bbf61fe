"""Lists multiply, single values do not vary, and settings are written in the field's symbols."""

from hypothesis import given
from hypothesis import strategies as st

from mergetool.study.candidates.grid import grid_points, label_of


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(), min_size=1, max_size=3, unique=True)))
def test_a_grid_has_as_many_points_as_its_lists_multiply_to(grid):
    points, varying = grid_points(grid)
    product = 1
    for values in grid.values():
        product *= len(values)
    assert len({tuple(point.items()) for point in points}) == len(points) == product
    assert varying == [key for key, values in grid.items() if len(values) > 1]


def test_settings_have_their_symbols():
    assert (
        label_of({"every": "total", "density": 5e-4, "weight by part": "0/1", "gamma": 0.01})
        == "K=total p=0.0005 w=0/1 gamma=0.01"
    )
