"""Every class of transformers that can be built small: the merge of two is their mean, with no weight missing or left over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.architecture.families import classes, merged, small_model

EVERY_DAY = {
    "LlamaForCausalLM", "GPT2LMHeadModel", "Gemma2ForCausalLM", "FalconForCausalLM", "MambaForCausalLM", "BloomForCausalLM",
    "OPTForCausalLM", "GPTNeoXForCausalLM", "Qwen2ForCausalLM", "Qwen3MoeForCausalLM", "MixtralForCausalLM",
    "DeepseekV3ForCausalLM", "GptOssForCausalLM", "T5ForConditionalGeneration", "BartForConditionalGeneration",
    "MT5ForConditionalGeneration", "WhisperForConditionalGeneration", "BertForMaskedLM", "ModernBertForMaskedLM",
    "RobertaForMaskedLM", "AlbertForMaskedLM", "LlavaForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration",
    "Gemma3ForConditionalGeneration", "PaliGemmaForConditionalGeneration", "Idefics3ForConditionalGeneration",
}  # fmt: skip

NOT_SMALL = {
    "ChameleonForConditionalGeneration": "its configuration has no vocabulary map of its own",
    "CohereCompassForCausalLM": "its default configuration has no rope for its layers",
    "CohereCompassForConditionalGeneration": "its default configuration has no rope for its layers",
    "Cosmos3EdgeForConditionalGeneration": "three sections of rope are fixed to one width of a head",
    "DbrxForCausalLM": "its default configuration lacks rope_theta",
    "DeepseekOcr2ForConditionalGeneration": "its image encoder's width is written into the class",
    "DeepseekVLHybridForConditionalGeneration": "its image encoder's width is written into the class",
    "DiffusionGemmaForBlockDiffusion": "settings for each of its 30 layers",
    "Dots3NoteForCausalLM": "settings for each of its layers",
    "Dots3NoteForConditionalGeneration": "settings for each of its layers",
    "Emu3ForConditionalGeneration": "its configuration has no vocabulary map of its own",
    "Ernie4_5_VLMoeForConditionalGeneration": "its experts' bias has no size in the default configuration",
    "FastVlmForConditionalGeneration": "its image encoder is timm's",
    "Florence2ForConditionalGeneration": "four stages with lists of widths that belong together",
    "Gemma3nForConditionalGeneration": "its image encoder is timm's",
    "Gemma4AssistantForCausalLM": "its sizes are fixed to its target's",
    "Gemma4UnifiedAssistantForCausalLM": "its sizes are fixed to its target's",
    "Glm5NextForConditionalGeneration": "settings that belong together in ways that their names do not tell",
    "Granite4VisionForConditionalGeneration": "its default configuration has no map of its layers",
    "JanusForConditionalGeneration": "its image tokenizer's widths are written into the class",
    "Molmo2ForConditionalGeneration": "its adapter counts on 25 layers of its image encoder",
    "MuseSparkForConditionalGeneration": "four stages with lists of widths that belong together",
    "NeoMMEForMaskedLM": "its rope counts on one width of a head",
    "PerceptionLMForConditionalGeneration": "its image encoder is timm's",
    "PPFormulaNetForConditionalGeneration": "its image encoder's width is written into the class",
    "UnlimitedOcrForConditionalGeneration": "its image encoder's width is written into the class",
    "VibeVoiceAsrForConditionalGeneration": "its audio encoder's stride is written into the class",
}
"""What cannot be built small from the names of its settings, and why."""

DOES_NOT_LOAD_ITSELF = {"Nemotron3_5TranscribeForConditionalGeneration"}
"""transformers 5.23 refuses a checkpoint that it has saved itself."""


@pytest.mark.parametrize("name", [n if n in EVERY_DAY else pytest.param(n, marks=pytest.mark.slow) for n in sorted(classes())])
def test_the_merge_of_two_models_of_a_class_is_their_mean(name: str, tmp_path: Path) -> None:
    model, why = small_model(name)
    if name in NOT_SMALL:
        assert model is None, "it can be built now: take it out of NOT_SMALL"
        pytest.skip(f"cannot be built small: {NOT_SMALL[name]} ({why})")
    assert model is not None, why
    if name in DOES_NOT_LOAD_ITSELF:
        model.save_pretrained(tmp_path)
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            type(model).from_pretrained(tmp_path)
        return
    loaded, info, mean = merged(model, tmp_path)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = loaded.state_dict()
    assert state.keys() == mean.keys()
    for key, value in mean.items():
        torch.testing.assert_close(state[key], value.to(state[key].dtype), rtol=0, atol=1e-6, msg=key)
    if loaded.can_generate() and not hasattr(loaded.config, "vision_config") and name in EVERY_DAY:
        _same_logits(model, mean, loaded)


def _same_logits(model, mean: dict[str, torch.Tensor], loaded) -> None:
    model.load_state_dict(mean)
    inputs = {loaded.main_input_name: torch.tensor([[1, 5, 9, 20, 33]])}
    if loaded.main_input_name != "input_ids":
        inputs = {loaded.main_input_name: torch.ones(1, loaded.config.num_mel_bins, 2 * loaded.config.max_source_positions)}
    if loaded.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[1, 7, 8]])
    with torch.no_grad():
        ours, theirs = (one.eval()(**inputs).logits for one in (loaded, model))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ours.std() > 0
