"""One thread, and a pair of tiny Llamas with data."""

import json
from pathlib import Path

import pytest

from tests.evaluate import tiny


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sft and rlhf, untied, three layers; pairs.jsonl whose chosen sides the SFT model's last layer makes likely."""
    import torch

    folder = tmp_path_factory.mktemp("ama")
    model = tiny.llama(0, tied=False, layers=3)
    for at, name in enumerate(("sft", "rlhf")):
        torch.manual_seed(at)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    rows = [{"prompt": f"q{at}", "chosen": f" yes {at}", "rejected": f" no no {at}"} for at in range(24)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "eval.jsonl").write_text("".join(json.dumps({"prompt": f"e{at}", "completion": " ok"}) + "\n" for at in range(6)))
    return folder
