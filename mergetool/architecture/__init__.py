"""What a model is: its layers, what is tied to what, names in memory and on disk, whether two checkpoints match.

The knowledge is transformers' own: its configuration classes, the classes that they make (on the meta device, without
weights), and its tables of names. transformers is imported where a question needs it and not before.
"""
