"""A model directory as a lazily read mapping from tensor names to tensors."""
