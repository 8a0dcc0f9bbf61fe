"""A suite accounts for every benchmark of its paper."""

import pytest

from mergetool.errors import RecipeError
from mergetool.evaluate import SUITES, HarnessTask
from mergetool.evaluate.harness.names import not_run


@pytest.mark.slow  # reads the harness's fourteen thousand YAML files
def test_every_task_of_every_suite_is_in_the_installed_harness_with_its_metric():
    for name, suite in SUITES.items():
        found = HarnessTask(name, (name,), unsafe_code=True).metrics()
        assert len(found) == len(suite.benchmarks) + 1
        assert found[0].name == "average"
        assert all(one.unit != "as the task gives it" for one in found), name
    unsafe = {one.task.partition(":")[0] for one in SUITES["omo-14"].benchmarks if one.runs_code}
    with pytest.raises(RecipeError, match=", ".join(sorted(unsafe))):
        HarnessTask("s", ("omo-14",)).metrics()
    with pytest.raises(RecipeError, match="did you mean 'arc_easy'"):
        HarnessTask("s", ("arc_esy",)).metrics()


def test_suites_account_for_every_benchmark_of_their_papers():
    omo = SUITES["omo-14"]
    public_ones = len(omo.benchmarks) + len(omo.missing) - 1  # code-switching is a category beside the twelve
    assert (public_ones, len(omo.judged)) == (12, 2)
    assert len(SUITES["ama"].benchmarks) == 7
    assert any("Math401" in line for line in not_run(["quiz_a", "omo-14"])["omo-14"])
    assert not_run(["ama"]) == {}
