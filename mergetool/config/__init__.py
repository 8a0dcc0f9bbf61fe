"""What recipes of every kind share: strict YAML, the names of models and data, and the recipes that ship."""
