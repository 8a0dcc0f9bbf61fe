"""A directory of tasks has tasks."""

import pytest

from mergetool.errors import RecipeError
from tests.evaluate.public import task


def test_a_directory_without_tasks_says_so(tmp_path):
    for place, says in ((tmp_path, "no .yaml file"), (tmp_path / "none", "no such directory")):
        with pytest.raises(RecipeError, match=says):
            task(place, "quiz_a").metrics()
