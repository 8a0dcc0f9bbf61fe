"""The YAML that recipes may use: plain values, keys once, and no more of it than a person writes.

Twenty lines of aliases can stand for a billion values; what the text expands to is counted before a value is made of it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

LIMIT = 250_000
"""Bytes of a recipe; Python reads a megabyte of YAML in ten seconds."""
_VALUES, _DEPTH, _DIGITS = 100_000, 50, 400

# YAML 1.2's numbers. PyYAML follows 1.1, where `1e-6` is text because the dot is missing.
FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_PLAIN = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map", "merge", "value")
)


@lru_cache(maxsize=1)
def loader() -> type:
    """A SafeLoader that knows YAML 1.2 floats, and refuses a key that is given twice, and what is no plain value."""
    import yaml

    class StrictLoader(yaml.SafeLoader):
        _depth = 0

        def fetch_flow_collection_start(self, TokenClass: Any) -> None:
            if self.flow_level > _DEPTH:  # the scanner takes the square of the depth
                raise _refusal("nests too deeply", SimpleNamespace(start_mark=self.get_mark()))
            super().fetch_flow_collection_start(TokenClass)

        def compose_document(self) -> Any:
            node = super().compose_document()
            _must_be_bounded(node)
            return node

        def compose_node(self, parent: Any, index: Any) -> Any:
            self._depth += 1
            if self._depth > _DEPTH:
                raise _refusal("nests too deeply", self.peek_event())
            node = super().compose_node(parent, index)
            self._depth -= 1
            return node

        def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
            if node.tag not in _PLAIN:
                raise _refusal(f"{node.tag.removeprefix('tag:yaml.org,2002:')!r} is no kind of a recipe's values", node)
            if isinstance(node, yaml.ScalarNode):
                _must_be_text(node)
            try:
                return super().construct_object(node, deep=deep)
            except (ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
                raise _refusal(str(error).partition(";")[0], node) from None

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
            seen: set[Any] = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, (dict, list)):
                    raise _refusal("a key must be a word, not a list or a mapping", key_node)
                if key in seen:
                    raise _refusal(f"the key '{key}' is given twice", key_node)
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    # The class attribute is shared with SafeLoader until it is written to: copy before adding.
    StrictLoader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:timestamp"]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{FLOAT.pattern})$"), list("-+.0123456789"))
    return StrictLoader


def _refusal(problem: str, at: Any) -> Exception:
    import yaml

    return yaml.constructor.ConstructorError(None, None, problem, at.start_mark)


def _must_be_text(node: Any) -> None:
    value = str(node.value)
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _refusal("a value with a letter that is none (NUL, or half of a pair)", node)
    if node.tag == "tag:yaml.org,2002:int" and len(value) > _DIGITS:
        raise _refusal(f"a number of {len(value):,} digits", node)


def _must_be_bounded(root: Any) -> None:
    """Refuses what expands to too many values, or holds itself; each node is looked at once, however often it is named."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: Any) -> int:
        if not isinstance(node.value, list):
            return 1
        if (known := sizes.get(id(node))) is not None:
            return known
        if id(node) in open_nodes:
            raise _refusal("an alias that holds itself", node)
        open_nodes.add(id(node))
        children = [child for one in node.value for child in (one if isinstance(one, tuple) else (one,))]
        found = sizes[id(node)] = 1 + sum(map(size, children))
        open_nodes.discard(id(node))
        if found > _VALUES:
            raise _refusal(f"stands for more than {_VALUES:,} values", node)
        return found

    if root is not None:
        size(root)
