"""The generator of the embedded lab: data, tokenizer, base, SFT and RLHF from a seed. `python -m tools.lab.make OUT_DIR`."""
