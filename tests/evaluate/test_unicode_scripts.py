"""An answer switches when it has a letter of a script that neither the prompt nor the reference answer has."""

import pytest

from mergetool.errors import DataError
from mergetool.evaluate.unicode_scripts import SCRIPTS, scripts_of, switches


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("Where is the lamp? 12 €, 50 % :-) 🙂", {"Latin"}),
        ("法国的首都是哪里？", {"Han"}),
        ("これはペンです。", {"Hiragana", "Katakana"}),
        ("Где лампа", {"Cyrillic"}),
        ("한국어 and English", {"Hangul", "Latin"}),
        ("x = 3 + 4 · 5", {"Latin"}),
        ("α", {"Greek"}),
        ("ａｂｃ，é", {"Latin"}),
        ("ᏣᎳᎩ", {"Cherokee"}),
        ("", set()),
    ],
)
def test_scripts_are_those_of_unicode(text, scripts):
    assert scripts_of(text) == scripts


def test_every_script_of_the_table_is_one_that_unicode_knows():
    import regex

    for name in SCRIPTS:
        regex.compile(rf"\p{{Script={name}}}")


@pytest.mark.parametrize(
    ("answer", "row", "switched"),
    [
        ("Paris is the capital.", {"prompt": "What is the capital of France?"}, False),
        ("The capital is 巴黎.", {"prompt": "What is the capital of France?"}, True),
        ("首都是Paris。", {"prompt": "法国的首都是哪里？"}, True),
        ("首都是Paris。", {"prompt": "法国的首都是哪里？", "completion": "Paris（巴黎）"}, False),
        ("猫", {"prompt": "Translate to Chinese: cat", "chosen": "猫"}, False),
        ("The cat: 猫", {"prompt": "Translate to Chinese: cat", "chosen": "猫", "scripts": ["Han"]}, True),
        ("それはペンと紙です", {"prompt": "これは何？"}, False),
        ("用循环：\n```python\nfor i in range(3):\n    pass\n```\n即可，见 `range`。", {"prompt": "怎么写循环？"}, False),
        ("答案是 42！", {"prompt": "六乘七是多少？"}, False),
        ("Да", {"prompt": [{"role": "user", "content": "Это лампа?"}]}, False),
        ("", {"prompt": "Hello"}, False),
    ],
)  # fmt: skip
def test_an_answer_keeps_to_the_scripts_of_its_row(answer, row, switched):
    assert switches(answer, row) is switched


def test_an_unknown_script_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'Cyrillic'"):
        switches("x", {"prompt": "x", "scripts": "Cyrilic"})
