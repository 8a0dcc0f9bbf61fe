"""IFEval's checks agree with lm-evaluation-harness', for a metric and for a reward."""

import pytest

from mergetool.errors import DataError
from mergetool.evaluate.instructions import check_row, followed, follows, instruction_reward

ROW = {
    "prompt": "Write about tides.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words", "change_case:english_lowercase"],
    "kwargs": [{}, {"relation": "at least", "num_words": 4, "keyword": None}, {}],
}
ANSWERS = ["the sea rises and falls", "the sea, it rises", "The sea rises and falls", "", "no commas"]


def test_each_instruction_agrees_with_the_harness() -> None:
    utils = pytest.importorskip("lm_eval.tasks.ifeval.utils")
    given = utils.InputExample(0, ROW["instruction_id_list"], ROW["prompt"], ROW["kwargs"])
    for answer in ANSWERS:
        theirs = utils.test_instruction_following_strict(given, answer)
        assert followed(ROW, answer) == theirs.follow_instruction_list
        assert follows(ROW, answer) == theirs.follow_all_instructions


def test_a_reward_is_the_share_of_instructions_that_are_followed() -> None:
    columns = {"instruction_id_list": [ROW["instruction_id_list"]] * 2, "kwargs": [ROW["kwargs"]] * 2}
    found = instruction_reward(
        prompts=[ROW["prompt"], [{"role": "user", "content": ROW["prompt"]}]],
        completions=[ANSWERS[0], [{"role": "assistant", "content": ANSWERS[1]}]],
        other=[1, 2],
        **columns,
    )
    assert found == [1.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "p"}, "lacks 'instruction_id_list' and 'kwargs'"),
        ({"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "lists of one length"),
        (
            {"prompt": "p", "instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]},
            "did you mean 'punctuation:no_comma'",
        ),
    ],
)
def test_a_row_without_known_instructions_is_refused(row: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_row(row)
