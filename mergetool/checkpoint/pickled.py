"""Pickled checkpoints (.bin): mapped, and read through torch's weights-only unpickler alone."""

from __future__ import annotations

import pickle
import zipfile
from hashlib import file_digest, sha256
from pathlib import Path

import torch

from mergetool import reading
from mergetool.checkpoint.header import BY_TORCH_NAME, TensorInfo
from mergetool.checkpoint.recognise import LFS_HINT, is_pointer
from mergetool.errors import CheckpointError


def load_mapped(path: Path) -> dict[str, torch.Tensor]:
    """A state dict whose tensors are mapped from the file, or of torch's old format in memory; only tensors are unpickled.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other things.
    """
    try:
        with reading.opened(path) as file:
            if is_pointer(file.read(64)):
                raise CheckpointError(f"{path}: is a Git-LFS pointer and not the file itself", LFS_HINT)
        # the format before torch 1.6 is no zip archive, and has to be read whole
        state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file", "fetch the checkpoint again: a shard is missing") from None
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{path}: holds more than tensors ({reason})", "convert it to safetensors where you trust it"
        ) from None
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path}: cannot be mapped or read ({reason[:200]})", "save it again with save_pretrained"
        ) from None
    if isinstance(state, dict) and (within := next((k for k, v in state.items() if _is_state(v)), None)) is not None:
        raise CheckpointError(
            f"{path}: is a file of a training, whose weights lie under '{within}'",
            f"load it in torch, and save what lies under '{within}' as pytorch_model.bin",
        )
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path}: is not a mapping of names to tensors", "save it again with save_pretrained")
    return {name: tensor.detach() for name, tensor in state.items()}  # some programs save nn.Parameters


def _is_state(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def same(one: TensorInfo, other: TensorInfo) -> bool:
    """True where two tensors of .bin files hold the same values."""
    return one.shape == other.shape and torch.equal(load_mapped(one.file)[one.name], load_mapped(other.file)[other.name])


def tensor_infos(path: Path) -> tuple[dict[str, TensorInfo], tuple[int, str]]:
    """The tensors of one .bin file, and (file size, sha256 of its pickle, which is its header)."""
    state = load_mapped(path)
    size = path.stat().st_size
    infos = {}
    for name, tensor in state.items():
        dtype = BY_TORCH_NAME.get(str(tensor.dtype).removeprefix("torch."))
        if dtype is None or tensor.layout != torch.strided:
            raise CheckpointError(
                f"{path}: tensor '{name}' is {tensor.dtype}, which is not supported", "save it as safetensors"
            )
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes > size:  # a stride of zero can claim any size
            raise CheckpointError(f"{path}: tensor '{name}' claims {nbytes:,} bytes of a smaller file", "do not use this file")
        infos[name] = TensorInfo(name, dtype, tuple(tensor.shape), path, 0, nbytes)
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            return infos, (size, file_digest(file, "sha256").hexdigest())
    with zipfile.ZipFile(path) as archive:
        header = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        return infos, (size, sha256(archive.read(header)).hexdigest())
