"""Every local format behind one face: which reader a checkpoint needs, and a model with an adapter on top."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mergetool.checkpoint.adapted_reader import AdaptedReader
from mergetool.checkpoint.dequantised import as_numbers
from mergetool.checkpoint.dequantised_reader import DequantisedReader
from mergetool.checkpoint.in_form import InFormReader
from mergetool.checkpoint.layout import Layout, read_layout
from mergetool.checkpoint.lora import with_adapter
from mergetool.checkpoint.place import Place
from mergetool.checkpoint.reader import PickledReader, Reader


def layout_of(place: Place, adapter: Place | None = None) -> Layout:
    """The headers of a model, with an adapter's on top where one is given.

    Raises:
        CheckpointError: a part is missing, damaged, or does not fit the other.
    """
    layout = as_numbers(read_layout(place))
    if adapter is None:
        return layout
    return with_adapter(layout, adapter)


def open_reader(layout: Layout, places: dict[Path, Path] | None = None) -> Reader:
    """The reader that fits a layout: plain, pickled, or with an adapter on top.

    Args:
        layout: its files are on this disk, see `checkpoint.fetch.fetch_weights`.
        places: where a file lies that is not where the layout says; it may change while the reader is in use.
    """
    if layout.in_form is not None:
        return InFormReader(layout, open_reader(layout.in_form.below, places))
    stored = replace(layout, tensors=layout.dequantised.raw, dequantised=None) if layout.dequantised else layout
    reader = PickledReader(stored) if layout.pickled else Reader(stored, places)
    if layout.dequantised is not None:
        reader = DequantisedReader(layout, reader)
    return reader if layout.adapter is None else AdaptedReader(layout, reader, places)
