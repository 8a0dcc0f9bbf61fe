"""The first metric of each side is that side's axis."""

from mergetool.study.recipe.columns import axes, columns
from tests.study import tiny


def test_columns_come_in_the_recipes_order_and_the_first_of_a_side_is_its_axis(folder):
    study = tiny.study(folder)
    assert [one.name for one in columns(study)] == ["pairs.preference_accuracy", "pairs.reward_margin", "skills.nll"]
    reward, tax = axes(study)
    assert (reward.name, tax.name) == ("pairs.preference_accuracy", "skills.nll")
    assert reward.metric.higher_is_better
    assert not tax.metric.higher_is_better
