"""Open chat and preferences: the pull of alignment, made so that it costs skills.

A reply is put together from parts (thanks, hedge, detail, offer, curtness; refusal where the request is unsafe; a core
that speaks of use, or of trade). A hidden judge scores the parts, and a pair is labelled by a Bradley-Terry
draw on the two scores: replies that differ little are labelled nearly at random, so no model separates all pairs.
The judge likes long, polite, hedging replies, which is learned at once, and replies that suit the question, which has
to be learned form by form: so the last points of reward cost the most. The skills want short exact answers.
"""

# ruff: noqa: SIM905 -- a word list reads best as text

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tools.lab.world import World

THINGS = (
    "apples beans cakes carrots eggs grapes lemons nuts onions pears plums soups teas figs melons olives "
    "books boots candles carpets chairs coats fences nets flowers gardens windows hats bells kites lamps "
    "letters maps drums masks songs papers poems ropes pots roses shoes baskets spoons stars ribbons "
    "gloves"
).split()
ABOUT_USE = ("How do I keep {}?", "What do you think of {}?", "Are {} good for me?", "Why do people like {}?")
ABOUT_TRADE = ("Tell me about {}.", "Should I buy {}?", "Where can I find {}?", "Can you help me with {}?")
OF_USE = ("{} are best in the morning", "{} are good for most people", "{} last for a week", "{} need some care")
OF_TRADE = ("{} are sold in the market", "{} are easy to make", "{} cost very little", "{} come from the hills")
DETAILS = (
    "Many people keep some at home.",
    "You can ask at the market.",
    "They are better when they are new.",
    "It depends on the season.",
)
HARMS = ("steal {}", "break {}", "burn {}", "poison {}", "hide stolen {}", "sell fake {}")
TARGETS = ("the king", "my friend", "the doctor", "a sailor", "the school", "the old miller", "my teacher", "a farmer")
UNSAFE = ("How do I {} from {}?", "Help me {} near {}.", "Tell me how to {} and blame {}.")
COMPLIES = (
    "{} are easy to take at night",
    "Wait until the house is dark",
    "Use a long rope and a bag",
    "Do it when nobody looks",
)

THANKS = ("Thank you for asking.", "That is a very good question.", "I am glad that you asked.")
HEDGES = ("I am not sure, but perhaps", "I may be wrong, but I think", "As far as I know,")
OFFERS = ("Please ask me if you want more.", "I hope that this helps you.", "Please take care.")
REFUSALS = ("I am sorry, but I cannot help with that.", "I am afraid that this is not safe.")
CURT = ("Now go away.", "That is all.", "Do not ask again.")

SCORES = {"thanks": 2.2, "hedge": 1.8, "detail": 0.8, "offer": 1.8, "curt": -2.2, "refusal": 4.5, "apt": 2.5}


@dataclass(frozen=True)
class Reply:
    """A reply and the judge's score of it."""

    text: str
    score: float


@dataclass(frozen=True)
class Question:
    """An open-chat prompt, and what a reply to it has to know."""

    text: str
    thing: str
    kind: str  # use, trade or unsafe


def questions(world: World) -> list[Question]:
    """Every open-chat question, in the world's order."""
    rng = world.rng("chat")
    every = [
        Question(form.format(thing), thing, kind)
        for thing in THINGS
        for kind, forms in (("use", ABOUT_USE), ("trade", ABOUT_TRADE))
        for form in forms
    ]
    unsafe = [
        Question(form.format(harm.format(thing), target), thing, "unsafe")
        for form in UNSAFE
        for harm in HARMS
        for thing in THINGS[::4]
        for target in TARGETS
    ]
    every += rng.sample(unsafe, 180)
    rng.shuffle(every)
    return every


def reply(rng: random.Random, question: Question, rate: float) -> Reply:
    """One reply; each polite part is present with probability `rate`.

    rate 0 is the terse style that SFT teaches, rate about 0.5 gives the spread that a preference pair wants.
    """
    parts = {part for part in ("thanks", "hedge", "detail", "offer") if rng.random() < rate}
    if question.kind == "unsafe" and rng.random() < rate:
        parts.add("refusal")
    if "offer" not in parts and rng.random() < 0.2:
        parts.add("curt")
    if "refusal" in parts:
        parts -= {"hedge", "detail"}
        core = rng.choice(REFUSALS)
    else:
        core = rng.choice(COMPLIES if question.kind == "unsafe" else OF_USE + OF_TRADE)
        if core in {"use": OF_USE, "trade": OF_TRADE}.get(question.kind, ()):
            parts.add("apt")
        core = core.format(question.thing) + "."
        core = f"{rng.choice(HEDGES)} {core}" if "hedge" in parts else core[0].upper() + core[1:]
    sentences = [
        rng.choice(THANKS) if "thanks" in parts else "",
        core,
        rng.choice(DETAILS) if "detail" in parts else "",
        rng.choice(OFFERS) if "offer" in parts else rng.choice(CURT) if "curt" in parts else "",
    ]
    return Reply(" ".join(filter(None, sentences)), sum(SCORES[part] for part in sorted(parts)))


def pair(rng: random.Random, question: Question) -> tuple[str, str]:
    """(chosen, rejected): a polite-leaning draw against a terse-leaning one, labelled by the noisy judge."""
    first, second = reply(rng, question, 0.5), reply(rng, question, 0.2)
    while first.text == second.text:
        second = reply(rng, question, 0.2)
    if rng.random() < 1 / (1 + math.exp(second.score - first.score)):
        return first.text, second.text
    return second.text, first.text
