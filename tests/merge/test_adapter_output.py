"""A merge written as an adapter: PEFT loads it, and it is the full merge within fp32 rounding, or its best part of a rank."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mergetool.errors import CheckpointError, OutputError, RecipeError
from mergetool.merge import MergeRecipe, merge_tensors, merge_to_directory, plan_merge
from mergetool.merge.extract import extract
from tests.checkpoint.test_adapted_reader import GPT2, LLAMA, small, trained

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[1, 5, 9, 20, 33]])
UNTIED = {"tie_word_embeddings": False}


def recipe(method: str, models: list[str], base: Path | None = None, weights: tuple[float, ...] = (0.7, 0.5), **more: Any):
    entries = [{"model": m, "parameters": {"weight": w}} for m, w in zip(models, weights, strict=False)]
    found = {"merge_method": method, "models": entries, "dtype": "float32", **more}
    return MergeRecipe.model_validate(found | ({"base_model": str(base)} if base else {}))


def merged(kind: str, base: Path, adapter: Path, unload: bool = True):
    """PEFT's model, loaded and merged."""
    import transformers
    from peft import PeftModel

    model = PeftModel.from_pretrained(getattr(transformers, kind).from_pretrained(base), adapter)
    return model.merge_and_unload().eval() if unload else model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """(a base, two of its adapters with other layers, ranks and scales)."""
    root = tmp_path_factory.mktemp("llama")
    base = small(LLAMA, root / "base", UNTIED)
    trained(base, root / "a", LLAMA, {"target_modules": ["q_proj", "down_proj", "embed_tokens"], "use_rslora": True})
    trained(base, root / "b", LLAMA, {"r": 3, "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}})
    return base, [f"{base}+{root / 'a'}", f"{base}+{root / 'b'}"]


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("linear", {}),
        ("task_arithmetic", {"parameters": {"lambda": 0.5}}),
        ("task_arithmetic", {"parameters": {"normalize": True}}),
        ("ties", {"rank": 32, "parameters": {"density": 0.5}}),
        ("dare_linear", {"rank": 32, "parameters": {"density": 0.5}}),
    ],
)
def test_several_adapters_become_one(llama, tmp_path: Path, method: str, more: dict[str, Any]) -> None:
    base, models = llama
    origin = None if method == "linear" else base
    full, asked = (recipe(method, models, origin, output=o, **(more if o == "adapter" else _without(more))) for o in OUTPUTS)
    manifest = merge_to_directory(plan_merge(asked), tmp_path / "out")
    ours, want = merged(LLAMA, base, tmp_path / "out").state_dict(), dict(merge_tensors(plan_merge(full)))
    for name, value in want.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert manifest["adapter"]["norm_kept"] == pytest.approx(1.0, abs=1e-6)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    if "rank" not in more:
        assert config["r"] == 7
        assert set(config["rank_pattern"].values()) == {4, 2}
    assert not any("o_proj" in name for name in config["target_modules"])


OUTPUTS = ("model", "adapter")


def _without(more: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in more.items() if key != "rank"}


def test_a_smaller_rank_keeps_the_best_part_and_says_how_much(llama, tmp_path: Path) -> None:
    base, models = llama
    manifest = merge_to_directory(plan_merge(recipe("linear", models, output="adapter", rank=2)), tmp_path / "out")
    ours, plain = merged(LLAMA, base, tmp_path / "out").state_dict(), load_file(base / "model.safetensors")
    kept = total = 0.0
    for name, value in merge_tensors(plan_merge(recipe("linear", models))):
        change = (value - plain[name]).double()
        if change.any():
            sizes = torch.linalg.svdvals(change)
            error = torch.linalg.norm(ours[name].double() - value.double())
            assert float(error) == pytest.approx(float(sizes[2:].square().sum().sqrt()), rel=1e-3, abs=1e-5)
            kept, total = kept + float(sizes[:2].square().sum()), total + float(sizes.square().sum())
    assert manifest["adapter"]["norm_kept"] == pytest.approx((kept / total) ** 0.5, rel=1e-5)
    assert manifest["adapter"]["rank"] == 2


@pytest.mark.parametrize(
    ("kind", "config"),
    [(LLAMA, UNTIED), (LLAMA, {}), (LLAMA, {"attention_bias": True}), (GPT2, {}), ("T5ForConditionalGeneration", {})],
    ids=["untied", "tied", "biases", "transposed", "encoder-decoder"],
)
def test_an_extraction_of_full_rank_is_the_model(tmp_path: Path, kind: str, config: dict[str, Any]) -> None:
    import transformers

    base = small(kind, tmp_path / "base", config)
    model = getattr(transformers, kind).from_pretrained(base)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".1." in name or "embed" in name or "ln_f" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(tmp_path / "model")
    manifest = extract(tmp_path / "model", base, tmp_path / "out", rank=160)
    assert manifest["adapter"]["norm_kept"] == pytest.approx(1.0, abs=1e-5)
    ours, want = merged(kind, base, tmp_path / "out"), model.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, want[name], rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
    held = load_file(tmp_path / "out/adapter_model.safetensors")
    assert not any(re.search(r"(layers|h)\.0\.|block\.0\.layer\.0", name) for name in held)  # what did not change
    if kind == LLAMA:
        live = merged(kind, base, tmp_path / "out", unload=False)
        torch.testing.assert_close(logits(live), logits(model.eval()), rtol=1e-3, atol=1e-4)
        again = recipe("linear", [f"{base}+{tmp_path / 'out'}"], weights=(1.0,))  # and this program reads it as PEFT does
        for name, value in merge_tensors(plan_merge(again)):
            torch.testing.assert_close(value, want[name], rtol=1e-4, atol=2e-5)


def test_the_same_bytes_for_any_threads_and_after_an_interruption(llama, tmp_path: Path) -> None:
    _, models = llama
    plan = plan_merge(recipe("linear", models, output="adapter", rank=3))
    merge_to_directory(plan, tmp_path / "one", threads=1)
    merge_to_directory(plan, tmp_path / "three", threads=3)

    def stop(done: int, total: int, label: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge_to_directory(plan, tmp_path / "resumed", threads=1, progress=stop)
    assert not (tmp_path / "resumed").exists()
    merge_to_directory(plan, tmp_path / "resumed", threads=1)
    files = [(tmp_path / one / "adapter_model.safetensors").read_bytes() for one in ("one", "three", "resumed")]
    assert files[0] == files[1] == files[2]
    before = (tmp_path / "one").stat().st_mtime_ns
    merge_to_directory(plan, tmp_path / "one")  # it is there
    assert (tmp_path / "one").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="another result"):
        merge_to_directory(plan_merge(recipe("linear", models, output="adapter", rank=4)), tmp_path / "one")


def test_what_cannot_be_an_adapter_is_refused(llama, tmp_path: Path) -> None:
    base, models = llama
    with pytest.raises(RecipeError, match="does not change by factors alone"):
        plan_merge(recipe("ties", models, base, output="adapter"))
    with pytest.raises(RecipeError, match="does not change by factors alone"):  # 0.7 + 0.5 of the base
        plan_merge(recipe("linear", models, output="adapter", parameters={"normalize": False}))
    other = small(LLAMA, tmp_path / "other", UNTIED)
    with pytest.raises(RecipeError, match="an adapter is for one model, and these are 2"):
        plan_merge(recipe("linear", [models[0], str(other)], output="adapter", rank=2))
    with pytest.raises(RecipeError, match="native engine"):
        plan_merge(recipe("model_stock", models, base, output="adapter", rank=2), engine="mergekit")
    nothing = plan_merge(recipe("linear", [str(base)], weights=(1.0,), output="adapter", rank=2))
    with pytest.raises(RecipeError, match="changes no layer"):
        merge_to_directory(nothing, tmp_path / "out")
    mixture = small("MixtralForCausalLM", tmp_path / "moe", {})
    experts = {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]}
    trained(mixture, tmp_path / "x", "MixtralForCausalLM", experts)
    with pytest.raises(CheckpointError, match="which is not written as an adapter"):
        plan_merge(recipe("linear", [f"{mixture}+{tmp_path / 'x'}"], weights=(1.0,), output="adapter", rank=2))
