"""No code that a model wrote runs without leave."""

import pytest

from mergetool.errors import RecipeError
from mergetool.evaluate import Harness
from tests.evaluate import public
from tests.evaluate.public import task


def test_a_group_inside_a_group_hides_no_code(tmp_path):
    folder = public.tasks(tmp_path)
    inner = "  - group: inner\n    task:\n      - {task: quiz_a, unsafe_code: true}\n"
    (folder / "outer.yaml").write_text(f"group: outer\ntask:\n{inner}aggregate_metric_list: [{{metric: acc}}]\n")
    with pytest.raises(RecipeError, match="quiz_a would execute code"):
        Harness(task(folder, "outer")).load()
