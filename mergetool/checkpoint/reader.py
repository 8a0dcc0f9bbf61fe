"""Reading tensors from memory-mapped safetensors, whole or a block at a time."""

from __future__ import annotations

import mmap
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import torch

from mergetool import reading
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.layout import Layout
from mergetool.checkpoint.pickled import load_mapped
from mergetool.errors import CheckpointError, next_step
from mergetool.files import most_open_files

_COMPARED_AT_ONCE = 1 << 22


class _Mapped:
    """Which files are mapped by which reader, the oldest first: each takes a descriptor, and a process has few of them."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[int, Path], weakref.ref[Reader]] = OrderedDict()
        self._lock = threading.Lock()

    def took(self, reader: Reader, file: Path) -> None:
        """Note a file, and forget the oldest where there are too many; it is mapped again when it is needed."""
        most = max(16, most_open_files() // 4)
        with self._lock:
            self._held[id(reader), file] = weakref.ref(reader)
            while len(self._held) > most:
                (_, oldest), known = self._held.popitem(last=False)
                if (other := known()) is not None:
                    other.release(oldest)


_MAPPED = _Mapped()


class Reader:
    """Lazily mapped views of a checkpoint's tensors; safe to share between threads.

    Views are read-only memory of the file: they cost no anonymous memory, and writing to one is undefined.
    """

    def __init__(self, layout: Layout, places: dict[Path, Path] | None = None) -> None:
        self.layout = layout
        self.watch: Callable[[TensorInfo, int, torch.Tensor], None] | None = None
        """Is given what is read of safetensors, as it is stored: (tensor, first element, flat elements)."""
        self._places = {} if places is None else places  # where a file lies that is not where its layout says
        self._maps: dict[Path, torch.Tensor] = {}
        self._flats: dict[tuple[Path, str], torch.Tensor] = {}
        self._lock = threading.Lock()

    def tensor(self, name: str) -> torch.Tensor:
        """The whole tensor in its stored dtype and shape.

        Raises:
            CheckpointError: the checkpoint has no tensor of that name, or its file has shrunk since it was listed.
        """
        info = self._info(name)
        return self._flat(info, 0, info.numel).view(info.shape)

    def block(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Flat elements [start, stop) in the stored dtype, shape (stop − start,).

        Raises:
            CheckpointError: as `tensor`.
        """
        return self._flat(self._info(name), start, stop)

    def _info(self, name: str) -> TensorInfo:
        try:
            return self.layout.tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.layout.name}: has no tensor '{name}'", "check that the models match") from None

    def _flat(self, info: TensorInfo, start: int, stop: int) -> torch.Tensor:
        if info.offset % info.itemsize:  # a legal file may leave a tensor unaligned; torch cannot view that
            first, stop = info.offset + start * info.itemsize, min(stop, info.numel)
            block = self._map(info)[first : first + (stop - start) * info.itemsize].clone().view(info.dtype)
        else:
            flat = self._flats.get((info.file, info.name))
            if flat is None:
                raw = self._map(info)[info.offset : info.offset + info.nbytes]
                flat = self._flats[info.file, info.name] = raw.view(info.dtype)
            block = flat[start:stop]
        if self.watch is not None:
            self.watch(info, start, block)
        return block

    def _map(self, info: TensorInfo) -> torch.Tensor:
        """The file's bytes as one read-only uint8 tensor."""
        mapped = self._maps.get(info.file)
        if mapped is not None:
            return mapped
        with self._lock:
            mapped = self._maps.get(info.file)
            if mapped is None:
                mapped = self._maps[info.file] = self._mapped_now(info)
        _MAPPED.took(self, info.file)
        return mapped

    def _mapped_now(self, info: TensorInfo) -> torch.Tensor:
        try:
            with reading.opened(self._places.get(info.file, info.file)) as file:
                memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            why = error.strerror or error
            raise CheckpointError(f"{info.file}: cannot be mapped ({why})", next_step(error)) from error
        except ValueError as error:
            raise CheckpointError(f"{info.file}: cannot be mapped ({error})", "check that the file is whole") from error
        expected = self.layout.headers.get(info.file.name, (len(memory), ""))[0]
        if len(memory) != expected:
            raise CheckpointError(f"{info.file}: has changed its size since its header was read", "run it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # "the given buffer is not writable": it is only read
            return torch.frombuffer(memory, dtype=torch.uint8)

    def release(self, file: Path) -> None:
        """Forget one file; whoever is reading it keeps what it has."""
        self._maps.pop(file, None)
        for key in [key for key in list(self._flats) if key[0] == file]:
            self._flats.pop(key, None)

    def close(self) -> None:
        """Forget the maps; the memory goes when the last view of it does."""
        self._maps.clear()
        self._flats.clear()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def equal(one: Reader, name: str, other: Reader, known: str) -> bool:
    """True where two tensors hold the same values."""
    numel = one.layout.tensors[name].numel
    if other.layout.tensors[known].numel != numel:
        return False
    return all(torch.equal(one.block(name, a, b), other.block(known, a, b)) for a, b in _spans(numel))


def _spans(numel: int) -> list[tuple[int, int]]:
    return [(a, min(a + _COMPARED_AT_ONCE, numel)) for a in range(0, numel, _COMPARED_AT_ONCE)]


class PickledReader(Reader):
    """Blocks of tensors that torch has mapped."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._states: dict[Path, dict[str, torch.Tensor]] = {}
        self._state_lock = threading.Lock()

    def _flat(self, info: TensorInfo, start: int, stop: int) -> torch.Tensor:
        state = self._states.get(info.file)
        if state is None:
            with self._state_lock:
                state = self._states.setdefault(info.file, load_mapped(info.file))
        return state[info.name].reshape(-1)[start:stop]

    def close(self) -> None:
        """Let the files go."""
        self._states.clear()
