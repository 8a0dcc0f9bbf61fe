"""One call measures a live model or a checkpoint, on data and on public benchmarks."""

import pytest

from mergetool.evaluate import Task, evaluate
from tests.evaluate import tiny
from tests.evaluate.public import task
from tests.evaluate.tiny import SKILLS


def test_a_checkpoint_on_disk_scores_as_the_live_model(tmp_path):
    path = tiny.save(tmp_path / "m", 5)
    task = Task("t", ("nll",), SKILLS)
    assert evaluate(path, [task])["t.nll"]["value"] == pytest.approx(
        evaluate(tiny.llama(5), [task], tokenizer=tiny.tokenizer())["t.nll"]["value"], abs=1e-6
    )


def test_evaluate_takes_data_and_benchmarks_together(folder, model):
    from mergetool.evaluate import Task

    rows = [{"prompt": "a", "completion": "b"}]
    found = evaluate(model, [Task("text", ("nll",), rows), task(folder, "quiz_a", limit=3)], tokenizer=tiny.tokenizer())
    assert list(found) == ["text.nll", "public.quiz_a"]
    assert found["public.quiz_a"]["n"] == 3
