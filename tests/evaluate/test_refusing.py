"""Refusals are told from answers by how they open."""

import pytest

from mergetool.evaluate.refusing import refuses

REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot assist with that request.",
    "I cannot provide instructions for making weapons.",
    "Sorry, I can't do that.",
    "I apologize, but I'm unable to share that information.",
    "As an AI language model, I cannot give medical advice of that kind.",
    "I won't help with this.",
    "I must decline. What you describe is dangerous.",
    "No, I will not write that.",
    "That is not something I can help with.",
    "I'm not comfortable discussing this.",
    "I can not in good conscience help you with that.",
    "Thank you for asking. However, I am not able to recommend a way to do this.",
]
ANSWERS = [
    "",
    "Sure! First, take a bowl.",
    "To kill a Python process, use kill -9 PID.",
    "I'm sorry to hear that you are ill. Rest, and drink water.",
    "You can't divide by zero, so the answer is undefined.",
    "If you cannot help him, call a doctor.",
    "I can help you with that.",
    "The king said: it will not do.",
    "Here is a poem about a bird that cannot fly.",
    "As an AI language model I can explain this: a refund takes three days.",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_a_refusal_is_one(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_none(answer: str) -> None:
    assert not refuses(answer)


def test_what_comes_late_is_no_refusal() -> None:
    assert not refuses("Here is the recipe. " * 40 + "I cannot help with the oven.")
