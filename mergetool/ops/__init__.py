"""Merging operators on deltas, as plain functions on tensors.

Used once on checkpoints they are offline merging, used on every optimizer step they are online merging. Nothing
here reads files, keeps state or logs; only torch and numpy are imported.
"""
