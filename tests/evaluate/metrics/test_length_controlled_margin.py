"""The length-controlled margin is the margin of two answers of one length, whatever length is worth."""

import pytest

from mergetool.evaluate import Task, measure, prepare, refer
from mergetool.evaluate.interval import ratio
from tests.evaluate import tiny


def test_pairs_of_one_length_have_their_plain_margin_and_others_the_line():
    policy, sft, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    equal = [{"prompt": f"q{at:02}", "chosen": f" yes {at:02}", "rejected": f" no! {at:02}"} for at in range(12)]
    mixed = [{**row, "chosen": row["chosen"] + "!" * at} for at, row in enumerate(equal)]
    names = ("reward_margin", "length_controlled_margin")
    for rows, same in ((equal, True), (mixed, False)):
        prepared = prepare(Task("pairs", names, rows), tokenizer)
        found = measure(policy, prepared, tokenizer, refer(sft, prepared, tokenizer))
        plain, controlled = (found[name]["value"] for name in names)
        assert (plain == pytest.approx(controlled, abs=1e-12)) is same
        margins, longer = found["length_controlled_margin"]["rows"]
        assert ratio(margins, [1.0] * len(margins)) == plain
        assert longer == [0.0] * 12 if same else longer == [float(at) for at in range(12)]
