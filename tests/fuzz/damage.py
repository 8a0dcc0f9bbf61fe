"""Ways in which a file can be wrong: bytes, JSON and YAML values, and what stands in a file's place."""

from __future__ import annotations

import copy
import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONG_NUMBER = "@@5000 digits@@"
DEEP = "@@deep@@"
BOMB = "@@bomb@@"
_RAW = {LONG_NUMBER: "9" * 5000, DEEP: "[" * 100_000 + "]" * 100_000}


def bomb(levels: int = 30) -> str:
    """A YAML value of 2^levels nodes, in one line of flow style."""
    lists = [f"&b{level} [*b{level - 1}, *b{level - 1}]" for level in range(1, levels)]
    return "[&b0 [x, x], " + ", ".join(lists) + "]"


def odd_value(rng: random.Random) -> Any:
    """A value that nobody expects at its place."""
    return rng.choice(
        [
            None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, 1e-320, float("nan"),
            float("inf"), "", " ", "\x00", "\x1b[31mred\x1b[0m", "[bold]x[/bold]", "[/]", "$x_1$", "\\frac{", "<script>",
            "../..", "/etc/passwd", "\udcff", "é" * 50, "x" * 100_000, "auto", "cuda:99", "1e-6", "~", "file:///", "http://127.0.0.1:1/",
            "a+b", "org/name", "lab:sft", "*", [], {}, [[]], [None], {"": None}, [1, "a", {}], {"a": {"b": {"c": []}}},
            [0] * 5000, {str(i): i for i in range(2000)}, LONG_NUMBER, DEEP, "w1", "model.norm.weight", [-1], [2**40, 2**40],
        ]
    )  # fmt: skip


def spots(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a tree of values, the whole first."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(spot for key, child in children for spot in spots(child, (*at, key)))]


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """A tree of values with one to three places changed, dropped, renamed, doubled or exchanged."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = [spot for spot in spots(tree) if spot] or [()]
        spot = rng.choice(places)
        if not spot:
            return odd_value(rng)
        holder = tree
        for key in spot[:-1]:
            holder = holder[key]
        key = spot[-1]
        what = rng.randrange(8)
        if what == 0:
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            holder[str(odd_value(rng))[:50]] = holder.pop(key)
        elif what == 2 and isinstance(holder, dict):
            holder[rng.choice(["x", "", "type", "path", str(key) + "s"])] = odd_value(rng)
        elif what == 3:
            other = rng.choice(places)
            found = tree
            for step in other:
                found = found[step] if (isinstance(found, dict) and step in found) or isinstance(found, list) else found
                if not isinstance(found, (dict, list)):
                    break
            holder[key] = copy.deepcopy(found)
        elif what == 4 and isinstance(holder, list):
            holder.extend([copy.deepcopy(holder[key])] * rng.choice([1, 3, 100]))
        else:
            holder[key] = odd_value(rng)
    return tree


def as_json(tree: Any) -> bytes:
    """JSON text of a tree, with what no Python value can say."""
    text = json.dumps(tree)
    for mark, raw in _RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode(errors="surrogatepass")


def as_yaml(tree: Any, rng: random.Random) -> bytes:
    """YAML text of a tree; now and then with an explosion of aliases in place of a value."""
    text = json.dumps(tree, ensure_ascii=False)
    for mark, raw in _RAW.items():
        text = text.replace(json.dumps(mark), raw)
    if rng.random() < 0.1 and (values := [i for i in range(len(text)) if text.startswith(": ", i)]):
        at = rng.choice(values) + 2
        text = text[:at] + bomb() + ", _x: " + text[at:]
    return text.encode(errors="surrogateescape")


def changed_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, doubled, put in or set to nought."""
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(data) + 1)
        size = rng.choice([1, 1, 2, 8, 100, 4096])
        what = rng.randrange(8)
        if what == 0:
            data = data[:at]
        elif what == 1:
            data[at:at] = rng.randbytes(size)
        elif what == 2:
            data[at : at + size] = b""
        elif what == 3:
            data[at : at + size] = bytes(len(data[at : at + size]))
        elif what == 4:
            data[at:at] = data[at : at + size]
        elif what == 5:
            data += rng.choice([b"\x00", b"\n", b"}", b"\xff\xfe", rng.randbytes(size)])
        elif what == 6:
            data[at:at] = rng.choice([b"[" * 5000, b"{", b'"', b"\xef\xbb\xbf", b"\x00", b"\x1b[2J", b"1" * 5000, b"\\ud800"])
        elif data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # an address has room for 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


INSTEAD: dict[str, Callable[[Path], None]] = {
    "a named pipe": lambda path: os.mkfifo(path),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to /dev/random": lambda path: path.symlink_to("/dev/urandom"),
    "a socket": _socket,
    "a directory": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nothing-there"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "nothing": lambda path: None,
    "an empty file": lambda path: path.touch(),
    "a terabyte of nought": _huge,
    "a link to /etc/passwd": lambda path: path.symlink_to("/etc/passwd"),
}


def put_instead(path: Path, what: str) -> None:
    """Put something else where a file was."""
    path.unlink(missing_ok=True)
    INSTEAD[what](path)
