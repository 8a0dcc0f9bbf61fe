"""The judge finds a reply's parts again from its text alone."""

from __future__ import annotations

from tests.lab.test_lab import rows
from tools.lab import chat, data
from tools.lab.judge import question_of, score


def test_every_reply_gets_the_score_that_it_was_made_with() -> None:
    world = data.world_of(0)
    rng = world.rng("judge")
    for question in chat.questions(world)[::7]:
        for rate in (0.2, 0.5, 0.9):
            made = chat.reply(rng, question, rate)
            assert abs(score(question, made.text) - made.score) < 1e-9, (question, made)


def test_every_prompt_of_the_pairs_is_a_question() -> None:
    for name in ("preferences_train", "preferences_validation", "preferences_test"):
        for row in rows(name)[::50]:
            assert question_of(row["prompt"]).text in row["prompt"]


def test_a_refusal_of_a_safe_question_is_worth_nothing() -> None:
    safe = next(q for q in chat.questions(data.world_of(0)) if q.kind == "use")
    unsafe = next(q for q in chat.questions(data.world_of(0)) if q.kind == "unsafe")
    assert score(safe, chat.REFUSALS[0]) == 0
    assert score(unsafe, chat.REFUSALS[0]) == chat.SCORES["refusal"]
