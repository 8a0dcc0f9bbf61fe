"""Measuring leaves the program as it was."""

from mergetool.evaluate import Harness
from tests.evaluate import tiny
from tests.evaluate.public import task


def test_measuring_leaves_seeds_tokenizer_and_streams_as_they_were(folder, model, capfd):
    import random

    import torch

    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = None
    random.seed(5)
    torch.manual_seed(5)
    Harness(task(folder, "quiz_a", "say_em")).measure(model, tokenizer)
    drawn = random.random(), torch.rand(1).item()
    random.seed(5)
    torch.manual_seed(5)
    assert drawn == (random.random(), torch.rand(1).item())
    assert tokenizer.pad_token is None
    assert capfd.readouterr() == ("", "")
