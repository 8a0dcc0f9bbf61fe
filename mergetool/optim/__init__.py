"""Online merging: torch optimizers that merge the SFT delta into every K-th step."""
