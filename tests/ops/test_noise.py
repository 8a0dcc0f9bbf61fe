"""Random words are a pure function of (seed, step, role, name, index), on any device."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mergetool.ops import noise

KEY = noise.stream_key(7, 3, "update", "model.layers.0.mlp.up_proj.weight")


def splitmix64(state: int, n: int) -> list[int]:
    """The published generator, sequentially, in Python integers."""
    mask = (1 << 64) - 1
    out = []
    for _ in range(n):
        state = (state + 0x9E3779B97F4A7C15) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def test_words_are_the_published_splitmix64_sequence() -> None:
    assert noise.words(KEY, 0, 100).tolist() == splitmix64(KEY, 100)


@given(start=st.integers(0, 1 << 40), count=st.integers(1, 40_000))
def test_words_can_be_read_from_any_counter(start: int, count: int) -> None:
    state = (KEY + start * 0x9E3779B97F4A7C15) % (1 << 64)
    got = noise.words(KEY, start, count)
    assert got[0] == splitmix64(state, 1)[0]
    last = (KEY + (start + count - 1) * 0x9E3779B97F4A7C15) % (1 << 64)
    assert got[-1] == splitmix64(last, 1)[0]


def test_torch_words_have_the_same_bits_as_numpy_words() -> None:
    expected = noise.words(KEY, 123, 5000).view(np.int64)
    assert noise.words_on("cpu", KEY, 123, 5000).numpy().tolist() == expected.tolist()


def test_different_seeds_steps_roles_and_names_give_different_keys() -> None:
    keys = {
        noise.stream_key(seed, step, role, name)
        for seed in (0, 1) for step in (0, 1) for role in ("a", "b") for name in ("w", "v")
    }  # fmt: skip
    assert len(keys) == 16


def test_scattered_words_are_the_words_of_the_stream() -> None:
    index = np.array([0, 3, 70_000, (1 << 40) + 5])
    expected = [int(noise.words(KEY, int(i), 1)[0]) for i in index]
    assert noise.words_at(KEY, index).tolist() == expected
    on_device = noise.words_at_on(KEY, torch.from_numpy(index)).numpy().view(np.uint64)
    assert on_device.tolist() == expected
