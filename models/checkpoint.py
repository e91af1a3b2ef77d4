"""A run's whole state in one file, written atomically, and weights alone as safetensors.

Files are named by the number of finished steps: `checkpoint-00000123.pt`. Only `torch.load(weights_only=True)` ever
reads them.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-(\d{8})\.pt")
_FORMAT = 1


def random_state() -> dict[str, Any]:
    """The states of torch's, CUDA's and numpy's global generators, as tensors and plain values."""
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": {
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(gauss),
        },
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """As it was when `random_state` was called; CUDA's only with as many devices as then."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    own = state["numpy"]
    keys = own["keys"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, own["position"], own["has_gauss"], own["gauss"]))


def checkpoint_path(folder: Path, *, step: int) -> Path:
    """Where the state after `step` finished steps lies."""
    return folder / f"checkpoint-{step:08d}.pt"


def checkpoints(folder: Path) -> list[Path]:
    """All of them, the newest first, whole or not."""
    return sorted((p for p in folder.glob("checkpoint-*.pt") if _NAME.fullmatch(p.name)), reverse=True)


def _write_atomically(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_checkpoint(folder: Path, state: Mapping[str, Any], *, step: int, keep: int = 2) -> Path:
    """Write the state after `step` steps, then remove all but the newest `keep` and what killed writers left."""
    if keep < 1:
        raise ValueError(f"keep is {keep}: at least one checkpoint must stay")
    path = checkpoint_path(folder, step=step)
    _write_atomically(path, lambda part: torch.save({"format": _FORMAT, **state}, part))
    for old in checkpoints(folder)[keep:]:
        old.unlink()
    for left in folder.glob(".checkpoint-*.part"):
        left.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path, *, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The saved state, its tensors on `device`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is cut short, damaged, or not one of ours.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not check the CRCs that it writes
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"checkpoint {path} is damaged at {damaged}: delete it and resume from an older one")
        state = torch.load(path, map_location=device, weights_only=True)
    except (zipfile.BadZipFile, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        told = f"checkpoint {path} is cut short or damaged ({error}): delete it and resume from an older one"
        raise ValueError(told) from error
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError(f"checkpoint {path} is not one of this program's (format {_FORMAT}): choose another file")
    return state


def latest_checkpoint(folder: Path, *, device: torch.device | str = "cpu") -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint and its state; damaged ones are passed over with a warning. None if there is none.

    Raises:
        ValueError: there are checkpoints and none of them is whole.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return path, load_checkpoint(path, device=device)
        except ValueError as error:
            logger.warning("%s", error)
    if found:
        raise ValueError(f"none of the {len(found)} checkpoints in {folder} is whole: delete them to start anew")
    return None


def export_weights(path: Path, state: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None) -> None:
    """Weights alone, as safetensors, written atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    _write_atomically(path, lambda part: save_file(plain, part, metadata=dict(metadata or {})))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Weights by name from a `.safetensors` file, one of our checkpoints, or a `.pt`/`.pth` state dict.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged or holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"weights {path} cannot be read ({error}): the file is damaged or of another kind") from error
    for key in ("module", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    weights = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    if not weights:
        raise ValueError(f"weights {path} holds no tensors by name: give a state dict")
    return weights
