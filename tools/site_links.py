"""A hook of mkdocs: links out of docs/ to files of the repository are shown as their paths, since a site has no such pages."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?!docs/)([^)#]+)\)")


def on_page_markdown(markdown: str, **context: Any) -> str:
    """`[words](../recipes/x.yaml)` becomes `words (recipes/x.yaml)`."""
    return _OUTSIDE.sub(r"\1 (`\2`)", markdown)
