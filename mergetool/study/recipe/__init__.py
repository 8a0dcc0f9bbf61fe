"""The study language: what may be written in a study, read strictly and checked without weights."""
