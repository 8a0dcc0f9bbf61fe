"""Each metric says what its row in the table says, and its interval comes from its rows."""

import math

import pytest
import torch

from mergetool.errors import CheckpointError, DataError, RecipeError
from mergetool.evaluate import METRICS, Task, evaluate, measure, prepare, refer
from mergetool.evaluate.greedy import greedy
from mergetool.evaluate.interval import bootstrap, ratio
from mergetool.evaluate.metrics.exact_match import final_number, is_hit, normalise
from tests.evaluate import tiny

PAIRS = [{"prompt": f"q{at}", "chosen": f" yes {at}", "rejected": f" no no {at}"} for at in range(20)]
SKILLS = [{"prompt": f"say {at}", "completion": str(at)} for at in range(10)]


def test_the_reference_scores_exactly_one_half_against_itself():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    prepared = prepare(Task("pairs", ("preference_accuracy", "reward_margin"), PAIRS), tokenizer)
    found = measure(model, prepared, tokenizer, refer(model, prepared, tokenizer))
    assert found["preference_accuracy"]["value"] == 0.5
    assert found["reward_margin"]["value"] == 0.0


def test_beta_scales_the_margin_and_leaves_the_accuracy():
    policy, reference, tokenizer = tiny.llama(1), tiny.llama(2), tiny.tokenizer()
    found = []
    for beta in (0.1, 0.2):
        prepared = prepare(Task("pairs", ("preference_accuracy", "reward_margin"), PAIRS, beta=beta), tokenizer)
        found.append(measure(policy, prepared, tokenizer, refer(reference, prepared, tokenizer)))
    assert found[1]["reward_margin"]["value"] == pytest.approx(2 * found[0]["reward_margin"]["value"])
    assert found[1]["preference_accuracy"]["value"] == found[0]["preference_accuracy"]["value"]


def test_nll_of_a_uniform_model_is_the_log_of_the_vocabulary():
    model = tiny.llama()
    torch.nn.init.zeros_(model.lm_head.weight)
    found = evaluate(model, [Task("text", ("nll",), SKILLS)], tokenizer=tiny.tokenizer())
    assert found["text.nll"]["value"] == pytest.approx(math.log(258), abs=1e-5)
    assert found["text.nll"]["unit"] == "nats/token"


def test_greedy_answers_do_not_depend_on_who_shares_the_batch():
    model, tokenizer = tiny.llama(3), tiny.tokenizer()
    prompts = [tokenizer("x" * n)["input_ids"] for n in (1, 4, 9, 2)]
    together = greedy(model, tokenizer, prompts, 8, stop_at_newline=True)
    assert together == [greedy(model, tokenizer, [prompt], 8, stop_at_newline=True)[0] for prompt in prompts]


def test_a_model_that_has_learnt_the_answers_matches_exactly():
    model, tokenizer = tiny.llama(), tiny.tokenizer()
    task = Task("skills", ("exact_match", "nll"), SKILLS[:3])
    coded = prepare(task, tokenizer).completions
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(150):
        loss = sum(
            -model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)[place - 1, one.ids[place]]
            for one in coded
            for place in range(one.start, len(one.ids))
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = evaluate(model, [task], tokenizer=tokenizer)
    assert found["skills.exact_match"]["value"] == 1.0
    assert found["skills.nll"]["value"] < 0.1


def test_answers_are_compared_after_normalisation():
    assert normalise("  The  King. ") == "the king"
    assert is_hit("The king", True, {"completion": "the king."})
    assert not is_hit("the king", False, {"completion": "the king"}), "still going on at the limit"
    assert not is_hit("the queen", True, {"completion": "the king"})


def test_gsm8k_answers_are_compared_by_the_number_after_the_mark():
    assert final_number("so 3 + 4 = 7\n#### 1,234.50") == "1234.5"
    assert final_number("it is 12.") == "12"
    assert final_number("none") is None
    assert is_hit("2+2=4\n#### 4 and on", False, {"completion": "#### 4", "target": "4"})
    assert not is_hit("#### 5", True, {"completion": "#### 4", "target": "4"})


def test_the_interval_holds_the_value_and_repeats_under_its_seed():
    top, bottom = [float(at % 3 == 0) for at in range(200)], [1.0] * 200
    low, high = bootstrap((top, bottom), seed=4)
    assert low < ratio(top, bottom) < high
    assert high - low == pytest.approx(2 * 1.96 * (1 / 3 * 2 / 3 / 200) ** 0.5, rel=0.15)
    assert bootstrap((top, bottom), seed=4) == (low, high)


def test_every_metric_states_unit_direction_and_side():
    for row in METRICS.values():
        assert row.unit
        assert row.side in ("reward", "tax")
        assert row.rows in ("preferences", "completions", "prompts")


def test_reward_without_a_reference_is_an_error_that_says_what_to_give():
    with pytest.raises(RecipeError, match="SFT model as the reference"):
        evaluate(tiny.llama(), [Task("pairs", ("reward_margin",), PAIRS)], tokenizer=tiny.tokenizer())


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


def test_a_directory_without_config_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        evaluate(tmp_path, [Task("t", ("nll",), SKILLS)])


def test_a_checkpoint_on_disk_scores_as_the_live_model(tmp_path):
    path = tiny.save(tmp_path / "m", 5)
    task = Task("t", ("nll",), SKILLS)
    assert evaluate(path, [task])["t.nll"]["value"] == pytest.approx(
        evaluate(tiny.llama(5), [task], tokenizer=tiny.tokenizer())["t.nll"]["value"], abs=1e-6
    )
