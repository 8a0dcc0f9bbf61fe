"""Category bars are means over seeds, as shares of the widest."""

from mergetool.study.analysis.categories import by_category
from tests.study.lines import lines


def test_category_bars_are_means_over_seeds_as_shares_of_the_widest(summary):
    (found,) = by_category(summary, lines())
    assert found["models"] == ["SFT", "RLHF", f"chosen ({summary.choice.group})"][: len(found["models"])]
    odd = next(one for one in found["categories"] if one["name"] == "odd")
    assert [bar["text"] for bar in odd["bars"]][:2] == ["1.000", "2.000"]
    assert max(bar["width"] for one in found["categories"] for bar in one["bars"]) == 1
