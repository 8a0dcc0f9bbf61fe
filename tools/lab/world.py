"""The lab's closed world: six skills, told once as plain text (for the base model) and once as instructions (for SFT).

Everything here is plain Python and a function of a seed, so the shipped data files can be regenerated and compared.
A *problem* is (skill, key, answer); its split is decided before any text is written, and the base corpus never states
a held-out problem -- except facts, which have to be stated somewhere to be known: those are held out of every
question form instead.
"""

# ruff: noqa: SIM905 -- a word list reads best as text

from __future__ import annotations

import random
from dataclasses import dataclass

SKILLS = ("add", "larger", "reverse", "sort", "translate", "fact")
LETTERS = "abcdefghiklmnoprst"
USER, ASSISTANT = "<|user|>", "<|assistant|>"

ADJECTIVES = "red blue green old young small tall quiet happy angry cold warm slow quick brave tired".split()
NOUNS = "fox bird king girl boy horse cat dog river tree house ship friend bear stone cloud".split()
VERBS = "sleeps runs sings waits falls jumps swims smiles works dances shines turns".split()

JOBS = "baker miller tailor doctor painter farmer sailor teacher hunter smith weaver singer".split()
PETS = "goat owl mouse rabbit snake duck crow pony turtle ferret hen frog".split()
COLOURS = "yellow purple orange white black brown pink silver golden grey crimson violet".split()


@dataclass(frozen=True)
class Problem:
    """One question of one skill; `key` identifies it within the skill."""

    skill: str
    key: tuple
    answer: str


def _words(rng: random.Random, count: int, heads: str, tails: str, syllables: int) -> list[str]:
    """Made-up words, all different."""
    found: list[str] = []
    while len(found) < count:
        word = "".join(rng.choice(heads) + rng.choice("aeiou") for _ in range(syllables)) + rng.choice(tails)
        if word not in found:
            found.append(word)
    return found


class World:
    """Names, facts, lexicon and held-out problems of one seed."""

    def __init__(self, seed: int = 0, per_skill: dict[str, int] | None = None):
        """Args:
        seed: everything below is a function of it.
        per_skill: how many problems of each skill are held out, by split.
        """
        self.seed = seed
        rng = self.rng("world")
        self.names = [name.title() for name in _words(rng, 80, "bdfgklmnrstv", "lnrsk", 2)]
        self.towns = [town.title() for town in _words(rng, 12, "bdghlmprtw", "nmr", 1)]
        self.lexicon = dict(zip(ADJECTIVES + NOUNS + VERBS, _words(rng, 44, "fhjkmptvz", "sk", 2), strict=True))
        self.facts = {
            (name, relation): rng.choice(values)
            for name in self.names
            for relation, values in (("home", self.towns), ("job", JOBS), ("pet", PETS), ("colour", COLOURS))
        }
        self.held_out: dict[str, list[Problem]] = {split: [] for split in (per_skill or {})}
        rng = self.rng("held-out")
        taken = set()
        for skill in SKILLS:
            for split, count in (per_skill or {}).items():
                before = len(taken)
                while len(taken) < before + count:
                    problem = self._draw(rng, skill)
                    if (skill, problem.key) not in taken:
                        taken.add((skill, problem.key))
                        self.held_out[split].append(problem)
        self._taken = taken

    def rng(self, name: str) -> random.Random:
        """An independent stream: adding a consumer never moves the others."""
        return random.Random(f"{self.seed}:{name}")

    def _draw(self, rng: random.Random, skill: str) -> Problem:
        if skill == "add":
            a, b = rng.randint(10, 69), rng.randint(2, 29)
            return Problem(skill, (a, b), str(a + b))
        if skill == "larger":
            a, b = rng.sample(range(10, 100), 2)
            return Problem(skill, (a, b), str(max(a, b)))
        if skill in ("reverse", "sort"):
            letters = rng.sample(LETTERS, rng.randint(3, 5 if skill == "reverse" else 4))
            answer = letters[::-1] if skill == "reverse" else sorted(letters)
            return Problem(skill, tuple(letters), " ".join(answer))
        if skill == "translate":
            words = (rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(VERBS))
            return Problem(skill, words, " ".join(self.lexicon[word] for word in words))
        key = rng.choice(list(self.facts))
        return Problem(skill, key, self.facts[key])

    def problem(self, rng: random.Random, skill: str) -> Problem:
        """A problem that is in no held-out split."""
        while (skill, (found := self._draw(rng, skill)).key) in self._taken:
            pass
        return found

    # -- the two ways a problem is told ------------------------------------------------------------------------

    def instruction(self, problem: Problem, rng: random.Random) -> str:
        """The question, as a user would put it."""
        key = problem.key
        if problem.skill == "add":
            return rng.choice((f"What is {key[0]} + {key[1]}?", f"Add {key[0]} and {key[1]}."))
        if problem.skill == "larger":
            return rng.choice((f"Which is larger, {key[0]} or {key[1]}?", f"Give the larger of {key[0]} and {key[1]}."))
        if problem.skill == "reverse":
            return rng.choice((f"Reverse: {' '.join(key)}", f"Say this backwards: {' '.join(key)}"))
        if problem.skill == "sort":
            return rng.choice((f"Sort: {' '.join(key)}", f"Put in order: {' '.join(key)}"))
        if problem.skill == "translate":
            return rng.choice((f"Translate to Velan: {' '.join(key)}", f"How does one say {' '.join(key)} in Velan?"))
        name, relation = key
        return rng.choice(
            {
                "home": (f"Where does {name} live?", f"Name the town of {name}."),
                "job": (f"What is the work of {name}?", f"What does {name} do?"),
                "pet": (f"Which pet does {name} have?", f"Name the pet of {name}."),
                "colour": (f"Which colour does {name} like?", f"What is the favourite colour of {name}?"),
            }[relation]
        )

    def statement(self, problem: Problem, rng: random.Random) -> str:
        """The same problem with its answer, as a sentence of the base corpus."""
        key, answer = problem.key, problem.answer
        if problem.skill == "add":
            return rng.choice((f"{key[0]} + {key[1]} = {answer} .", f"{key[0]} and {key[1]} make {answer} ."))
        if problem.skill == "larger":
            low = min(key)
            return rng.choice((f"of {key[0]} and {key[1]} the larger is {answer} .", f"{answer} is larger than {low} ."))
        if problem.skill == "reverse":
            return rng.choice((f"{' '.join(key)} backwards: {answer} .", f"reverse {' '.join(key)} to {answer} ."))
        if problem.skill == "sort":
            return rng.choice((f"{' '.join(key)} in order: {answer} .", f"sort {' '.join(key)} to {answer} ."))
        if problem.skill == "translate":
            words = " ".join(key)
            return rng.choice((f"{words} in Velan: {answer} .", f"to say {words} they say {answer} ."))
        return self.fact_sentence(key, rng)

    def fact_sentence(self, key: tuple[str, str], rng: random.Random) -> str:
        """A fact in one of several wordings; some start from the person, some end with them."""
        name, relation = key
        value = self.facts[key]
        return rng.choice(
            {
                "home": (
                    f"{name} lives in {value}.",
                    f"The town of {name} is {value}.",
                    f"The home of {name} is in {value}.",
                ),
                "job": (
                    f"{name} works as a {value}.",
                    f"The work of {name} is that of a {value}.",
                    f"{name} is a {value}.",
                ),
                "pet": (
                    f"{name} has a {value}.",
                    f"The pet of {name} is a {value}.",
                    f"{name} keeps a {value} as a pet.",
                ),
                "colour": (
                    f"{name} likes {value}.",
                    f"The favourite colour of {name} is {value}.",
                    f"The colour that {name} likes is {value}.",
                ),
            }[relation]
        )

    def story(self, rng: random.Random) -> str:
        """A templated tale: glue language, and a text set that is not a skill."""
        name, other = rng.sample(self.names, 2)
        adjective, noun, verb = rng.choice(ADJECTIVES), rng.choice(NOUNS), rng.choice(VERBS)
        article = "an" if adjective[0] in "aeiou" else "a"
        opening = rng.choice(
            (
                f"One day {name} saw {article} {adjective} {noun}.",
                f"{name} went out and met {article} {adjective} {noun}.",
                f"Long ago {name} lost {article} {adjective} {noun}.",
            )
        )
        middle = rng.choice(
            (
                f"It {verb} by the {rng.choice(NOUNS)}, said {other}.",
                f"{other} came to help.",
                f"Then {other} asked where the {noun} was.",
            )
        )
        ending = rng.choice(
            (
                f"Now the {noun} {verb} and {name} is {rng.choice(ADJECTIVES)}.",
                f"So they went home to {self.facts[name, 'home']}.",
                "And that was the end.",
            )
        )
        return f"{opening} {middle} {ending}"


def prompt_of(instruction: str) -> str:
    """The turn markers are special tokens, so prompt + completion tokenises as prompt, then completion."""
    return f"{USER}{instruction}{ASSISTANT}"
