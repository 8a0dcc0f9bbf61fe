"""A task that cannot be measured says why before anything is measured."""

import pytest

from mergetool.errors import DataError, RecipeError
from mergetool.evaluate import Task, prepare
from tests.evaluate import tiny
from tests.evaluate.tiny import SKILLS


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [
        (Task("t", ("nul",), SKILLS), RecipeError, "did you mean 'nll'"),
        (Task("t", ("nll", "reward_margin"), SKILLS), RecipeError, "mixes"),
        (Task("t", ("nll",), []), DataError, "no rows"),
        (Task("t", ("nll",), SKILLS, max_length=1), DataError, "max_length"),
        (Task("t", ("exact_match",), [{"prompt": "", "completion": "text"}]), DataError, "needs prompts"),
    ],
)
def test_a_task_that_cannot_be_measured_says_why(task, kind, says):
    with pytest.raises(kind, match=says):
        prepare(task, tiny.tokenizer())
