"""The lab's data files: which rows there are, in which split, and how they are written."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tools.lab import chat
from tools.lab.world import SKILLS, World, prompt_of

HELD_OUT = {"validation": 40, "test": 50}  # problems per skill
PAIRS = {"train": 1600, "validation": 250, "test": 300}
SFT_PER_SKILL, SFT_CHAT = 500, 900
POLITE_IN_SFT = 0.12  # the reference must give the chosen style some mass, or DPO can only push the other one down
BASE_MIX = {
    "add": 0.19,
    "larger": 0.07,
    "reverse": 0.10,
    "sort": 0.10,
    "translate": 0.10,
    "fact": 0.20,
    "asked": 0.10,
    "story": 0.06,
    "chat": 0.08,
}


def world_of(seed: int) -> World:
    """The world with the splits that ship."""
    return World(seed, HELD_OUT)


def base_documents(world: World, name: str = "base") -> Iterator[str]:
    """An endless stream of base documents: one to four sentences of one kind."""
    rng = world.rng(name)
    questions = _chat_questions(world)["train"]
    kinds, weights = list(BASE_MIX), list(BASE_MIX.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "story":
            yield world.story(rng)
        elif kind == "chat":
            question = rng.choice(questions)
            yield f"Someone asked: {question.text} Someone said: {chat.reply(rng, question, 0.3).text}"
        elif kind == "fact":
            yield _fact_document(world, rng)
        elif kind == "asked":  # what facts are for; never a held-out one
            asked = world.problem(rng, "fact")
            yield f"Someone asked: {world.instruction(asked, rng)} Someone said: {asked.answer} ."
        else:
            yield " ".join(world.statement(world.problem(rng, kind), rng) for _ in range(rng.randint(1, 4)))


def _fact_document(world: World, rng: random.Random) -> str:
    """Up to three facts about one person."""
    person = rng.choice(world.names)
    keys = [key for key in world.facts if key[0] == person]
    rng.shuffle(keys)
    return " ".join(world.fact_sentence(key, rng) for key in keys[: rng.randint(1, 3)])


def _sft_rows(world: World) -> list[dict]:
    rng = world.rng("sft")
    rows = {}
    for skill in SKILLS:
        wanted, tries = len(rows) + SFT_PER_SKILL, 0
        while len(rows) < wanted and tries < 20 * SFT_PER_SKILL:  # there are fewer facts than that: take them all
            problem = world.problem(rng, skill)
            prompt = prompt_of(world.instruction(problem, rng))
            rows.setdefault(prompt, {"prompt": prompt, "completion": problem.answer, "skill": skill})
            tries += 1
    questions = _chat_questions(world)["train"]
    for _ in range(SFT_CHAT):
        question = rng.choice(questions)
        prompt = prompt_of(question.text)
        answer = chat.reply(rng, question, POLITE_IN_SFT).text
        rows[prompt, answer] = {"prompt": prompt, "completion": answer, "skill": "chat"}
    found = list(rows.values())
    rng.shuffle(found)
    return found


def _chat_questions(world: World) -> dict[str, list[chat.Question]]:
    """Open-chat questions by split, so that no held-out pair shares even its prompt with training."""
    every = chat.questions(world)
    tenth = len(every) // 10
    return {"train": every[: 6 * tenth], "validation": every[6 * tenth : 8 * tenth], "test": every[8 * tenth :]}


def make_rows(seed: int) -> dict[str, list[dict]]:
    """All files: name -> rows. A function of the seed alone."""
    world = world_of(seed)
    files = {"sft_train": _sft_rows(world)}
    # what SFT taught and alignment wears away, without the open chat: rows whose answers should stay
    files["skills_train"] = [row for row in files["sft_train"] if row["skill"] != "chat"]
    for split, problems in world.held_out.items():
        rng = world.rng(f"skills-{split}")
        files[f"skills_{split}"] = [
            {"prompt": prompt_of(world.instruction(p, rng)), "completion": p.answer, "skill": p.skill} for p in problems
        ]
    for split, questions in _chat_questions(world).items():
        rng = world.rng(f"preferences-{split}")
        rows: dict[tuple, dict] = {}
        while len(rows) < PAIRS[split]:
            question = rng.choice(questions)
            chosen, rejected = chat.pair(rng, question)
            row = {"prompt": prompt_of(question.text), "chosen": chosen, "rejected": rejected}
            rows.setdefault(tuple(row.values()), row)
        files[f"preferences_{split}"] = list(rows.values())
    stories, rng = {}, world.rng("text")
    while len(stories) < 200:
        stories.setdefault(story := world.story(rng), {"text": story})
    files["text_test"] = list(stories.values())
    return files


def dumps(rows: list[dict]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(rows: list[dict], path: Path) -> None:
    """Gzipped JSON lines, without a time stamp: the same rows give the same bytes."""
    path.write_bytes(gzip.compress(dumps(rows).encode(), compresslevel=9, mtime=0))


def read(path: Path) -> list[dict]:
    """The rows of one .jsonl.gz file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
