"""The judge is asked in both orders over a real endpoint; what it says twice wins, and what can fail says so in one line."""

import json
import time

import pytest

from mergetool.errors import RecipeError
from mergetool.evaluate import JudgeSettings
from mergetool.evaluate.judge import Judge, verdict
from tests.evaluate import endpoint
from tests.evaluate.endpoint import settings

pytestmark = pytest.mark.usefixtures("key")

PROMPTS = [f"question {at}" for at in range(10)]


OURS = [f"ours {at}" for at in range(10)]


THEIRS = [f"theirs {at}" for at in range(10)]


def fair(prompt, first, second):
    """Prefers our answers to even questions."""
    ours = "A" if first.startswith("ours") else "B"
    other = {"A": "B", "B": "A"}[ours]
    return f"I looked at both.\n[[{ours if int(prompt.split()[-1]) % 2 == 0 else other}]]"


def test_a_judge_that_knows_what_it_wants_is_believed_and_asked_twice_for_each_pair():
    with endpoint.judge(fair) as seen:
        found = Judge(settings(seen.url)).compare(PROMPTS, OURS, THEIRS)
    assert found.scores == [1.0, 0.0] * 5
    assert found.without_verdict == 0
    assert len(seen.bodies) == 20
    asked = [body["messages"][-1]["content"] for body in seen.bodies]
    for at, prompt in enumerate(PROMPTS):
        orders = {
            (endpoint.part(text, "answer A"), endpoint.part(text, "answer B"))
            for text in asked
            if endpoint.part(text, "user") == prompt
        }
        assert orders == {(OURS[at], THEIRS[at]), (THEIRS[at], OURS[at])}
    assert {body["temperature"] for body in seen.bodies} == {0}


@pytest.mark.parametrize("reply", ["[[A]]", "[[B]]", "[[C]]"], ids=["always first", "always second", "always tie"])
def test_a_judge_that_sees_only_the_order_gives_exactly_one_half(reply):
    with endpoint.judge(lambda *_: reply) as seen:
        found = Judge(settings(seen.url)).compare(PROMPTS, OURS, THEIRS)
    assert found.scores == [0.5] * 10


def test_equal_answers_are_a_tie_that_nobody_is_asked_about():
    with endpoint.judge(fair) as seen:
        assert Judge(settings(seen.url)).compare(PROMPTS, OURS, [f" {text} " for text in OURS]).scores == [0.5] * 10
    assert not seen.bodies


def test_a_verdict_that_was_paid_for_is_not_asked_again(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    with endpoint.judge(fair) as seen:
        Judge(settings(seen.url), file).compare(PROMPTS[:6], OURS[:6], THEIRS[:6])
        assert len(seen.bodies) == 12
        with file.open("a") as part:
            part.write('{"key": "cut sho')  # a kill in the middle of a line
        found = Judge(settings(seen.url), file).compare(PROMPTS, OURS, THEIRS)
        assert len(seen.bodies) == 20
    assert found.scores == [1.0, 0.0] * 5
    assert endpoint.KEY not in file.read_text()
    whole = [line for line in file.read_text().splitlines() if line.endswith("}")]
    assert len(whole) == 20
    assert all(set(json.loads(line)) == {"key", "verdict"} for line in whole)


def test_a_busy_endpoint_is_asked_again_when_it_says():
    with endpoint.judge(fair) as seen:
        seen.fail_first = [(429, {"Retry-After": "1"}), (503, {"Retry-After": "0.01"})]
        began = time.monotonic()
        found = Judge(settings(seen.url, concurrency=1)).compare(PROMPTS[:1], OURS[:1], THEIRS[:1])
    assert found.scores == [1.0]
    assert time.monotonic() - began >= 1, "Retry-After was waited for"


def test_replies_without_a_verdict_are_asked_again_and_then_counted_as_ties():
    calls = []

    def moody(prompt, first, second):
        calls.append(prompt)
        if prompt == "question 0":
            return "[[A]] or [[B]], who can say"
        return fair(prompt, first, second)

    with endpoint.judge(moody) as seen:
        found = Judge(settings(seen.url)).compare(PROMPTS * 2, OURS * 2, THEIRS * 2)
    assert found.scores == [0.5, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0] * 2
    assert found.without_verdict == 4
    assert calls.count("question 0") == 2 * 3, "both orders, three times each"


def test_a_judge_that_never_gives_a_verdict_is_an_error():
    with endpoint.judge(lambda *_: "Both are nice.") as seen:
        judge = Judge(settings(seen.url))
        with pytest.raises(RecipeError, match=r"20 of 20 replies of judge hold no single \[\[A\]\]"):
            judge.compare(PROMPTS, OURS, THEIRS)
        with pytest.raises(RecipeError, match="does not end its reply"):
            judge.check()


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("[[A]]", "A"),
        ("Better: [[B]]\n\n[[B]]", "B"),
        ("[[C]].", "C"),
        ("[[A]] no, [[B]]", None),
        ("[A]", None),
        ("[[D]]", None),
        ("A", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_strictly(reply, found):
    assert verdict(reply) == found


def failing(url="", *, model="judge", **changes):
    return JudgeSettings(url, model, **{"timeout": 20.0, "retries": 0, **changes})


def test_what_an_endpoint_refuses_is_one_line_without_the_key(monkeypatch):
    with endpoint.judge(fair) as seen:
        with pytest.raises(RecipeError, match=r"has no model 'other' \(404\)"):
            Judge(failing(seen.url, model="other")).check()
        seen.fail_first = [(429, {})]
        with pytest.raises(RecipeError, match=r"429 after 0 retries.*lower concurrency"):
            Judge(failing(seen.url)).check()
        monkeypatch.setenv("OTHER_KEY", "sk-wrong-987")
        with pytest.raises(RecipeError, match=r"refuses the key \(401\); check the environment variable OTHER_KEY") as caught:
            Judge(failing(seen.url, key_env="OTHER_KEY")).check()
        assert "987" not in str(caught.value)
        with pytest.raises(RecipeError, match=r"refuses the key \(401\); name the key's environment variable"):
            Judge(failing(seen.url, key_env=None)).check()
        url = seen.url
    with pytest.raises(RecipeError, match="cannot be reached"):
        Judge(failing(url)).check()


def test_an_endpoint_that_sleeps_is_not_waited_for():
    with endpoint.judge(lambda *_: time.sleep(1) or "[[A]]") as seen, pytest.raises(RecipeError, match=r"within 0\.2 s"):
        Judge(failing(seen.url, timeout=0.2)).check()


def test_a_missing_key_and_a_wrong_address_are_said_before_anything_is_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(RecipeError, match="OPENAI_API_KEY is not set"):
        Judge(failing("http://localhost:1/v1"))
    with pytest.raises(RecipeError, match="is no address"):
        failing("localhost:8000")
    with pytest.raises(RecipeError, match="holds a user or a password") as caught:
        failing("https://me:secret@host/v1")
    assert "secret" not in str(caught.value)
