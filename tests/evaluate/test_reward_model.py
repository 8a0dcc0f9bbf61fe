"""The reward model scores what TRL would put to it; batches change nothing; a causal model is refused."""

import pytest

from mergetool.errors import CheckpointError, DataError
from mergetool.evaluate.reward_model import RewardModel
from tests.evaluate import tiny

PROMPTS = [f"{'long ' * at}question {at}:" for at in range(9)]


ANSWERS = [" yes" * (at % 4) + "." for at in range(9)]


@pytest.mark.parametrize("template", [False, True], ids=["joined", "chat template"])
def test_a_batch_gives_what_each_text_gives_alone(tmp_path, template, monkeypatch):
    model = RewardModel(tiny.reward_model(tmp_path / "rm", template=template))
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        text = model.tokenizer.apply_chat_template(turns, tokenize=False) if template else prompt + answer
        ids = model.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        expected.append(model.model(input_ids=ids).logits.item())
    assert model.scores(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr("mergetool.evaluate.reward_model.BATCH_TOKENS", 1)
    assert model.scores(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    assert len(set(expected)) == 9


def test_what_is_too_long_keeps_its_end(tmp_path):
    model = RewardModel(tiny.reward_model(tmp_path / "rm"))
    prompt = "".join(chr(97 + at % 26) for at in range(600))  # the model reads 512 tokens
    assert model.scores([prompt, prompt[50:]], ["end", "end"])[0] == pytest.approx(model.scores([prompt[-509:]], ["end"])[0])


@pytest.mark.parametrize("labels", [2, 3])
def test_a_model_of_several_labels_is_refused(tmp_path, labels):
    with pytest.raises(CheckpointError, match=f"gives {labels} scores to a text, not 1"):
        RewardModel(tiny.reward_model(tmp_path / "rm", labels))


def test_a_causal_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="LlamaForCausalLM, not a reward model"):
        RewardModel(tiny.save(tmp_path / "m"))


def test_conversations_need_the_reward_models_template(tmp_path):
    model = RewardModel(tiny.reward_model(tmp_path / "rm"))
    with pytest.raises(DataError, match="no chat template"):
        model.scores([[{"role": "user", "content": "hi"}]], ["hello"])
