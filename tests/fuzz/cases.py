"""Cases: a part of the corpus, a damage, a command, and what has to come of it. Case and seed say all of it.

A success is silent where the damage mattered. It is one of three:

- REFUSED: the damage takes away what the command reads (a cut weight file, a pipe in a file's place). Exit 0 is silent.
- SAME: the damage is to work of our own that can be made again (a shard of unfinished work, a cache). Exit 0 with other
  bytes than those of a run without the damage is silent.
- ANY: the input may mean something else now and be sound. Exit 0 is silent where the result is not whole: its weights are
  not what its manifest says, or unfinished work lies beside it.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz import corpus
from tests.fuzz.damage import INSTEAD, as_json, as_yaml, changed_bytes, changed_tree, odd_value, put_instead

REFUSED, SAME, ANY = "refused", "same", "any"
MODEL = ["base", "sft", "rlhf"]
DATA = ["rows.jsonl", "rows2.jsonl", "skills.jsonl", "skills2.jsonl"]
_MERGE = ["merge", "merge.yaml", "out", "--threads", "1"]


@dataclass
class Case:
    """One case, laid out in its directory.

    Attributes:
        kind: what is damaged.
        words: the command line.
        expects: REFUSED, SAME or ANY.
        about: the damage, for the report.
        out: the output that the command makes, if it does.
        cache: the directory that takes the place of the user's cache.
    """

    kind: str
    words: list[str]
    expects: str = ANY
    about: str = ""
    out: str | None = "out"
    env: dict[str, str] = field(default_factory=dict)


def _recipe(here: Path, **changes: Any) -> None:
    (here / "merge.yaml").write_text(json.dumps({**corpus.MERGE, **changes}))


def _model_command(rng: random.Random, here: Path, model: str = "rlhf") -> list[str]:
    """A command that reads all of a model called rlhf."""
    return rng.choice(
        [
            _MERGE, _MERGE, ["inspect", model], ["inspect", model, "--base", "base", "--json"], ["check", "merge.yaml"],
            ["merge", "merge.yaml", "out", "--dry-run"], ["extract", model, "base", "out", "--rank", "2"],
        ]
    )  # fmt: skip


def header(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """The header of a weight file."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml"])
    path = here / "rlhf" / "model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    text, body = raw[8 : 8 + length], raw[8 + length :]
    about = "tree"
    if rng.random() < 0.6:
        text = as_json(changed_tree(json.loads(text), rng))
    elif rng.random() < 0.5:
        text, about = changed_bytes(text, rng), "bytes"
    else:
        about = "length"
        length = rng.choice([0, 1, 2**63, 2**64 - 1, 10**8, len(raw), length - 1, length + 1, 100])
        path.write_bytes(struct.pack("<Q", length) + text + body)
        expects = ANY if length == len(text) else REFUSED
        return Case("header", _model_command(rng, here), expects, f"{about} {length}")
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return Case("header", _model_command(rng, here), ANY, about)


def body(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """The bytes of weights: cut, longer, or NaN; what reads them all has to see it."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml"])
    path = here / "rlhf" / "model.safetensors"
    raw = path.read_bytes()
    what = rng.randrange(3)
    if what == 0:
        path.write_bytes(raw[: rng.randrange(len(raw))])
        return Case("body", _model_command(rng, here), REFUSED, "cut")
    if what == 1:
        path.write_bytes(raw + rng.randbytes(rng.choice([1, 8, 4096])))
        return Case("body", _model_command(rng, here), REFUSED, "longer")
    (length,) = struct.unpack("<Q", raw[:8])
    at = 8 + length + 4 * rng.randrange((len(raw) - 8 - length) // 4)
    value = rng.choice([float("nan"), float("inf"), -float("inf")])
    path.write_bytes(raw[:at] + struct.pack("<f", value) + raw[at + 4 :])
    return Case("body", _MERGE, REFUSED, f"{value} at {at}")


def index(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """The index of several weight files, or one of them."""
    corpus.take(corpus_at, here, ["base", "sft", "sharded", "merge.yaml"])
    (here / "sharded").rename(here / "rlhf")
    path, expects = here / "rlhf" / "model.safetensors.index.json", ANY
    what = rng.randrange(3)
    if what == 0:
        path.write_bytes(as_json(changed_tree(json.loads(path.read_bytes()), rng)))
    elif what == 1:
        path.write_bytes(changed_bytes(path.read_bytes(), rng))
    else:
        shard = rng.choice(sorted((here / "rlhf").glob("model-*.safetensors")))
        raw = shard.read_bytes()
        shard.write_bytes(raw[: rng.randrange(len(raw))])
        expects = REFUSED
    return Case("index", _model_command(rng, here), expects, ["tree", "bytes", "a cut shard"][what])


def config(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """config.json and generation_config.json."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml"])
    model = rng.choice(MODEL)
    path = here / model / rng.choice(["config.json", "config.json", "generation_config.json"])
    tree = rng.random() < 0.7
    raw = as_json(changed_tree(json.loads(path.read_bytes()), rng)) if tree else changed_bytes(path.read_bytes(), rng)
    path.write_bytes(raw)
    return Case("config", _model_command(rng, here, model), ANY, f"{path.name} of {model}")


def tokenizer(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """The files of a tokenizer."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml"])
    model = rng.choice(MODEL)
    name = rng.choice(
        [
            "tokenizer.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "tokenizer.model",
            "added_tokens.json", "special_tokens_map.json", "chat_template.jinja", "tekken.json",
        ]
    )  # fmt: skip
    path = here / model / name
    if path.exists():
        raw = path.read_bytes()
        tree = rng.random() < 0.7
        path.write_bytes(as_json(changed_tree(json.loads(raw), rng)) if tree else changed_bytes(raw, rng))
    else:
        path.write_bytes(rng.choice([rng.randbytes(300), as_json(odd_value(rng)), b"w1\nw2\n", b'{"w1": 0}']))
        if name in ("vocab.json", "vocab.txt", "tokenizer.model", "tekken.json"):
            (here / model / "tokenizer.json").unlink()
    source = rng.choice(["base", "union", {"source": "union"}, "sft"])
    _recipe(here, tokenizer_source=source, **({"chat_template": "auto"} if rng.random() < 0.3 else {}))
    return Case("tokenizer", rng.choice([_MERGE, ["check", "merge.yaml"]]), ANY, f"{name} of {model}, {source}")


def adapter(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """An adapter's configuration and weights."""
    corpus.take(corpus_at, here, [*MODEL, "adapter"])
    models = [{"model": "sft+adapter", "parameters": {"weight": 0.5}}, {"model": "rlhf", "parameters": {"weight": 0.5}}]
    _recipe(here, merge_method="linear", models=models, parameters={})
    path = here / "adapter" / rng.choice(["adapter_config.json", "adapter_config.json", "adapter_model.safetensors"])
    raw, expects = path.read_bytes(), ANY
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_bytes(as_json(changed_tree(json.loads(raw), rng)))
    elif rng.random() < 0.5:
        path.write_bytes(raw[: rng.randrange(len(raw))])
        expects = REFUSED if path.suffix == ".safetensors" else ANY
    else:
        path.write_bytes(changed_bytes(raw, rng))
    return Case("adapter", rng.choice([_MERGE, ["check", "merge.yaml"], ["inspect", "sft+adapter"]]), expects, path.name)


def pickled(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """A checkpoint of torch's own files."""
    corpus.take(corpus_at, here, ["base", "sft", "pickled", "merge.yaml"])
    (here / "pickled").rename(here / "rlhf")
    path = here / "rlhf" / "pytorch_model.bin"
    path.write_bytes(changed_bytes(path.read_bytes(), rng))
    return Case("pickled", _model_command(rng, here), ANY, "bytes")


def instead(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """Something that is no file in the place of one that is read."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml"])
    model = rng.choice(MODEL)
    name = rng.choice(["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
    what = rng.choice(list(INSTEAD))
    put_instead(here / model / name, what)
    needed = name in ("config.json", "model.safetensors")
    return Case("instead", _MERGE, REFUSED if needed and what != "a link to /etc/passwd" else ANY, f"{what} as {model}/{name}")


def recipe(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """A recipe of one of the four kinds."""
    corpus.take(corpus_at, here, [*MODEL, *DATA])
    kind = rng.choice(["merge", "merge", "align", "ama", "study"])
    path = here / f"{kind}.yaml"
    if rng.random() < 0.8:
        path.write_bytes(as_yaml(changed_tree(corpus.RECIPES[kind], rng), rng))
    elif rng.random() < 0.1:
        put_instead(path, rng.choice(list(INSTEAD)))
    else:
        path.write_bytes(changed_bytes(json.dumps(corpus.RECIPES[kind]).encode(), rng))
    words = ["check", path.name]
    if kind == "merge":
        words = rng.choice([words, ["merge", path.name, "out", "--dry-run"], _MERGE])
    return Case("recipe", words, ANY, kind)


def rows(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """A data file."""
    name = rng.choice(["rows.jsonl", "rows.jsonl", "rows.json", "rows.csv", "rows.jsonl.gz", "rows.parquet", "rows.arrow"])
    corpus.take(corpus_at, here, ["base", "sft", name])
    path = here / name
    raw = path.read_bytes()
    if rng.random() < 0.1:
        put_instead(path, rng.choice(list(INSTEAD)))
    elif name.endswith((".jsonl", ".json")) and rng.random() < 0.6:
        tree = changed_tree(corpus.ROWS, rng)
        lines = tree if name.endswith("l") and isinstance(tree, list) else [tree]
        path.write_bytes(b"\n".join(map(as_json, lines)))
    else:
        path.write_bytes(changed_bytes(raw, rng))
    align = {**corpus.ALIGN, "data": {"train": name, "max_length": 32}}
    (here / "align.yaml").write_text(json.dumps(align))
    return Case("rows", ["check", "align.yaml"], ANY, name)


def journal(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """Unfinished work of a merge: its journal or its shard. What comes of it is the same merge."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml"])
    work = corpus.leave_unfinished(here)
    path = work / rng.choice(["journal.jsonl", "model.safetensors"])
    if rng.random() < 0.15:
        put_instead(path, rng.choice(list(INSTEAD)))
    else:
        path.write_bytes(changed_bytes(path.read_bytes(), rng))
    return Case("journal", _MERGE, SAME, path.name)


def manifest(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """A finished result, its account or its weights."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml", "done"])
    (here / "done").rename(here / "out")
    path = here / "out" / "mergetool.json"
    what = rng.randrange(4)
    if what == 0:
        path = here / "out" / "model.safetensors"
        raw = bytearray(path.read_bytes())
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        path.write_bytes(raw)
        return Case("manifest", _MERGE, REFUSED, "a bit of the weights")
    if what == 1:
        put_instead(path, rng.choice(list(INSTEAD)))
    elif what == 2:
        path.write_bytes(changed_bytes(path.read_bytes(), rng))
    else:
        path.write_bytes(as_json(changed_tree(json.loads(path.read_bytes()), rng)))
    words = rng.choice([_MERGE, _MERGE, ["merge", "out", "again"], ["check", "out"], ["push", "out", "me/x"]])
    return Case("manifest", words, ANY, "mergetool.json", out="again" if "again" in words else None)


def results(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """What a study has kept."""
    corpus.take(corpus_at, here, [*MODEL, *DATA, "study.yaml", "compared"])
    path = here / "compared" / rng.choice(["results.jsonl", "results.jsonl", "reference.json"])
    if rng.random() < 0.1:
        put_instead(path, rng.choice(list(INSTEAD)))
    elif path.suffix == ".jsonl" and rng.random() < 0.6:
        lines = path.read_text().splitlines()
        at = rng.randrange(len(lines))
        changed = [as_json(changed_tree(json.loads(line), rng)) if i == at else line.encode() for i, line in enumerate(lines)]
        path.write_bytes(b"\n".join(changed))
    else:
        path.write_bytes(changed_bytes(path.read_bytes(), rng))
    return Case("results", ["compare", "study.yaml", "compared", "--json"], ANY, path.name, out=None)


def caches(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """A calibration, which is kept and read again."""
    corpus.take(corpus_at, here, ["base", "sft", "rlhf", "calibration.safetensors", "rows.jsonl"])
    path = here / "calibration.safetensors"
    path.write_bytes(changed_bytes(path.read_bytes(), rng))
    _recipe(here, merge_method="null_space", base_model="sft", models=[{"model": "rlhf", "parameters": {"weight": 1.0}}],
            parameters={}, calibration="calibration.safetensors")  # fmt: skip
    words = rng.choice([_MERGE, ["inspect", "rlhf", "--base", "sft", "--calibration", "calibration.safetensors"]])
    return Case("caches", words, ANY, path.name)


_OPTIONS = {
    "merge": ["--seed", "--threads", "--shard-size", "--device", "--sweep", "--rank", "--engine", "--set", "--revision"],
    "inspect": ["--base", "--with", "--calibration", "--plot"],
    "extract": ["--rank", "--dtype", "--threads"],
    "check": [],
    "calibrate": ["--data", "--limit", "--rank", "--energy", "--memory", "--device", "--max-length"],
    "evaluate": ["--reward", "--tax", "--tasks", "--reference", "--device", "--limit"],
    "compare": ["--workers", "--device", "--dtype", "--save", "--ray"],
    "align": ["--set"],
    "ama": ["--device", "--set"],
    "push": ["--revision", "--results"],
    "recipes": [],
    "nothing": [],
}


def words(rng: random.Random, corpus_at: Path, here: Path) -> Case:
    """The command line itself."""
    corpus.take(corpus_at, here, [*MODEL, "merge.yaml", "rows.jsonl"])
    command = rng.choice(list(_OPTIONS))
    said = [command]
    for _ in range(rng.randrange(4)):
        said.append(rng.choice(["rlhf", "sft", "base", "merge.yaml", "nowhere", "", ".", "/dev/null", "out", "rows.jsonl",
                               "a\nb", "x" * 300, "[bold]", "org/name", "lab:x", "sft+rlhf", "../..", "é\udcff"]))  # fmt: skip
    for option in rng.sample(_OPTIONS[command], min(len(_OPTIONS[command]), rng.randrange(3))):
        values = [
            "0", "-1", "1e400", "9" * 5000, "cuda:7", "cuda:x", "meta", "float99", "qint8", "", "a=b", "weight=1", "seed=x",
            "density=0.1,0.2", "5GB", "1e-9B", "nan", "[/x]", "../x.png", "/dev/full", "x/y", "all",
        ]  # fmt: skip
        said += [option, rng.choice(values)]
    return Case("words", [one.replace("\x00", "") for one in said], ANY, " ".join(said)[:200], out=None)


KINDS: dict[Callable[[random.Random, Path, Path], Case], int] = {
    header: 12, body: 6, index: 10, config: 14, tokenizer: 10, adapter: 8, pickled: 4, instead: 6, recipe: 20, rows: 6,
    journal: 6, manifest: 8, results: 1, caches: 3, words: 6,
}  # fmt: skip


SLOW = ("rows", "results", "caches")
"""Kinds whose commands train, measure or draw."""


def lay_out(seed: int, number: int, corpus_at: Path, here: Path, only: Collection[str]) -> Case:
    """The case of a number, of one of the kinds that are named: its files come into `here`, which is empty."""
    rng = random.Random(f"{seed}/{number}")
    kinds = {kind: weight for kind, weight in KINDS.items() if kind.__name__ in only}
    return rng.choices(list(kinds), list(kinds.values()))[0](rng, corpus_at, here)
