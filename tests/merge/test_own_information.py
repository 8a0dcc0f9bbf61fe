"""Fisher merging of checkpoints: numpy's formula on gradients by hand, experts, vocabularies, what is refused and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mergetool.activations.fisher_file import FisherFile, make_fisher
from mergetool.checkpoint.open import layout_of
from mergetool.checkpoint.place import Directory
from mergetool.errors import DataError, RecipeError
from mergetool.merge import merge, merge_recipe, merge_tensors, plan_merge
from mergetool.merge.describe import describe
from mergetool.merge.own_information import OwnInformation
from mergetool.merge.plan import Source, TensorPlan, Term
from tests.activations.models import live
from tests.activations.test_fisher import ROWS
from tests.helpers import write_checkpoint, write_triple

TEXTS = {
    "sft": [" ".join(f"w{(7 * i + j * j) % 60}" for j in range(4 + i % 5)) for i in range(6)],
    "rlhf": [" ".join(f"w{(11 * i + 3 * j) % 30}" for j in range(5 + i % 3)) for i in range(6)],
}
WEIGHTS = {"sft": 0.4, "rlhf": 1.6}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"), num_hidden_layers=2, tie_word_embeddings=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("rows")
    for name, texts in TEXTS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return {name: {"data": str(folder / f"{name}.jsonl")} for name in TEXTS}


def recipe(triple: dict[str, Path], rows: Any, **changes: Any) -> Any:
    models = [{"model": str(triple[name]), "parameters": {"weight": w}} for name, w in WEIGHTS.items()]
    for model, name in zip(models, WEIGHTS, strict=True):
        if rows.get(name) is not None:
            model["calibration"] = rows[name]
    return merge_recipe({"merge_method": "fisher", "models": models, **changes})


def merged(asked: Any, threads: int = 1) -> dict[str, torch.Tensor]:
    return dict(merge_tensors(plan_merge(asked), threads=threads))


def by_hand(place: Path, texts: list[str]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(weights, F) in fp64, a row at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(place).double()
    tokenizer = AutoTokenizer.from_pretrained(place)
    found = {name: np.zeros(p.shape) for name, p in model.named_parameters()}
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        model.zero_grad()
        log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        torch.stack([log_p[at - 1, ids[at]] for at in range(1, len(ids))]).sum().backward()
        for name, p in model.named_parameters():
            found[name] += p.grad.numpy() ** 2 / len(texts)
    return {name: p.detach().numpy() for name, p in model.named_parameters()}, found


def test_a_merge_is_the_formula_and_its_bytes_do_not_depend_on_threads(triple: dict[str, Path], rows: dict[str, Any]) -> None:
    found = merged(recipe(triple, rows))
    (first, f_first), (second, f_second) = (by_hand(triple[name], TEXTS[name]) for name in WEIGHTS)
    floor = 1e-6 * max(np.concatenate([one.ravel() for one in f.values()]).mean() for f in (f_first, f_second))
    for name, theta in first.items():
        share = 1.6 * (f_second[name] + floor) / (0.4 * (f_first[name] + floor) + 1.6 * (f_second[name] + floor))
        expected = theta + share * (second[name] - theta)
        assert np.abs(found[name].numpy() - expected).max() < 1e-4 * np.abs(expected).max(), name
    unread = [f"w{i}" for i in range(60) if not any(f"w{i}" in text.split() for texts in TEXTS.values() for text in texts)]
    assert unread, "an entry that no row reads"
    row = 4 + int(unread[0][1:])
    mean = 0.2 * first["model.embed_tokens.weight"][row] + 0.8 * second["model.embed_tokens.weight"][row]
    assert np.abs(found["model.embed_tokens.weight"][row].numpy() - mean).max() < 1e-6
    three = merged(recipe(triple, rows), threads=3)
    assert all(torch.equal(three[name], one) for name, one in found.items())


def test_rows_for_all_models_are_each_models_own_rows_and_the_result_names_them(
    triple: dict[str, Path], rows: dict[str, Any], tmp_path: Path
) -> None:
    shared = merged(recipe(triple, {}, calibration=rows["sft"]))
    assert all(
        torch.equal(one, shared[name]) for name, one in merged(recipe(triple, dict.fromkeys(WEIGHTS, rows["sft"]))).items()
    )
    manifest = merge(recipe(triple, rows), tmp_path / "out")
    facts = {place.rpartition("/")[2]: one["rows"] for place, one in manifest["calibrations"].items()}
    assert {name: (one["sources"], one["rows"]) for name, one in facts.items()} == {n: ([f"{n}.jsonl"], 6) for n in TEXTS}
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.count("rows (") == 2
    assert "`rlhf.jsonl`: the Fisher information of each entry." in card


def test_check_states_memory_and_passes_and_no_weight_is_read(triple: dict[str, Path], rows: dict[str, Any]) -> None:
    told = describe(plan_merge(recipe(triple, rows)))
    numel = sum(one.numel() for one in load_file(triple["sft"] / "model.safetensors").values())
    assert told["bytes_of_calibration_memory"] == (4 + 8) * numel
    assert told["bytes_of_cache"] == 2 * 4 * numel
    assert [one["passes over the rows"] for one in told["calibrations"]] == [1, 1]


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"rlhf": None}, RecipeError, r"models\[1\] has no calibration"),
        ({"rlhf": "calibration.safetensors"}, RecipeError, "a file of mergetool calibrate holds second moments"),
        ({"rlhf": {"data": "nowhere.jsonl"}}, DataError, "nowhere.jsonl"),
        ({"rlhf": {"data": "PROMPTS"}}, DataError, "prompts without answers"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_weights_are_read(
    triple: dict[str, Path], rows: dict[str, Any], tmp_path: Path, given: dict, kind: type[Exception], message: str
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "w1 w2"}) + "\n")
    asked = json.loads(json.dumps({**rows, **given}).replace("PROMPTS", str(prompts)))
    with pytest.raises(kind, match=message) as caught:
        plan_merge(recipe(triple, asked))
    assert "\n" not in str(caught.value)


def test_rows_of_another_tokenizer_are_refused_and_nothing_is_left(
    triple: dict[str, Path], rows: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "german.jsonl").write_text(json.dumps({"text": "ein ganz anderer Satz"}) + "\n")
    asked = recipe(triple, {**rows, "rlhf": {"data": str(tmp_path / "german.jsonl")}})
    with pytest.raises(DataError, match="knows only 0% of the words"):
        merge(asked, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["german.jsonl"]
    with pytest.raises(RecipeError, match="reads one of each model, and a file is of one model"):
        plan_merge(recipe(triple, {}, calibration="some.safetensors"))


def turned(place: Path, to: Path) -> tuple[Path, torch.Tensor]:
    """A model once more with some words at other rows; and the old row of each new one."""
    weights = load_file(place / "model.safetensors")
    write_checkpoint(to, weights, num_hidden_layers=2, tie_word_embeddings=False)
    held = json.loads((to / "tokenizer.json").read_text())
    words = held["model"]["vocab"]
    order = list(words)
    order[10:60] = order[11:60] + order[10:11]
    held["model"]["vocab"] = {word: i for i, word in enumerate(order)}
    (to / "tokenizer.json").write_text(json.dumps(held))
    index = torch.tensor([words[word] for word in order])
    moved = {n: (one[index] if one.shape[0] == len(order) else one).contiguous() for n, one in weights.items()}
    save_file(moved, to / "model.safetensors", metadata={"format": "pt"})
    return to, index


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_words_at_other_rows_keep_what_is_known_of_them(
    triple: dict[str, Path], rows: dict[str, Any], tmp_path: Path, method: str
) -> None:
    moved, _ = turned(triple["rlhf"], tmp_path / "rlhf")
    asked = {"merge_method": method, "tokenizer_source": "base", "base_model": str(triple["sft"])}
    whole = merged(recipe(triple, rows, merge_method=method))
    found = merged(recipe({**triple, "rlhf": moved}, rows, **asked))
    for name, one in whole.items():
        assert torch.allclose(found[name], one, rtol=0, atol=1e-5 * float(one.abs().max())), name


def test_a_base_whose_words_get_other_rows_is_projected_by_its_own_words(
    triple: dict[str, Path], rows: dict[str, Any], tmp_path: Path
) -> None:
    moved, index = turned(triple["rlhf"], tmp_path / "rlhf")
    common = {"merge_method": "null_space", "base_model": str(triple["sft"]), "calibration": rows["sft"]}
    given = {"parameters": {"weight": 1.0, "strength": 2}}
    whole = merged(merge_recipe({**common, "models": [{"model": str(triple["rlhf"]), **given}]}))
    found = merged(merge_recipe({**common, "models": [{"model": str(moved), **given}], "tokenizer_source": str(moved)}))
    for name, one in whole.items():
        expected = one[index] if one.shape[0] == len(index) else one
        assert torch.allclose(found[name], expected, rtol=0, atol=1e-5 * float(one.abs().max())), name


def test_an_expert_on_disk_has_its_own_part_of_the_stack(tmp_path: Path) -> None:
    model = live("qwen3_moe")
    model.save_pretrained(tmp_path / "moe")
    make_fisher(tmp_path / "f", "key", ROWS, lambda: live("qwen3_moe"), {})
    file, whole = FisherFile(tmp_path / "f"), load_file(tmp_path / "f")
    source = Source("moe", layout_of(Directory(tmp_path / "moe")))
    own = OwnInformation([file, file], [source])

    def plan(name: str, shape: tuple[int, ...]) -> TensorPlan:
        return TensorPlan(name, shape, int(np.prod(shape)), "F32", True, 0, tuple(Term(0, None, 1.0, str(i)) for i in range(2)))

    at = "model.layers.1.mlp.experts"
    stack, gates = whole[f"{at}.down_proj"], whole[f"{at}.gate_up_proj"]
    held = {f"{at}.2.down_proj.weight": stack[2], f"{at}.1.gate_proj.weight": gates[1, :24]}
    for name, expected in {**held, f"{at}.3.up_proj.weight": gates[3, 24:]}.items():
        known = own.known(plan(name, tuple(expected.shape)))
        assert known is not None
        assert torch.equal(known.reads[1](5, 200), expected.reshape(-1)[5:200])
    tensors = [plan(name, info.shape) for name, info in source.layout.tensors.items()]
    assert own.unknown([*tensors, plan("extra.weight", (4, 4))]) == ["extra.weight"]


def test_tensors_without_information_are_the_weighted_mean_and_the_result_says_how_many(tmp_path: Path) -> None:
    """Of two tokens the first is all that is read, so that queries and keys, which choose among several, have no gradient."""
    triple = write_triple(tmp_path / "triple", num_hidden_layers=2)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"w{i} w{i + 1}"}) + "\n" for i in range(3)))
    asked = recipe(triple, {}, calibration={"data": str(tmp_path / "rows.jsonl")})
    manifest = merge(asked, tmp_path / "out")
    (said,) = [line for line in manifest["warnings"] if "Fisher" in line]
    assert said.startswith("4 of 20 tensors have no Fisher information")
    found, plain = (
        load_file(tmp_path / "out" / "model.safetensors"),
        {name: load_file(triple[name] / "model.safetensors") for name in TEXTS},
    )
    for part in ("q_proj", "k_proj"):
        name = f"model.layers.1.self_attn.{part}.weight"
        assert torch.allclose(found[name], 0.2 * plain["sft"][name] + 0.8 * plain["rlhf"][name], rtol=0, atol=1e-6)
