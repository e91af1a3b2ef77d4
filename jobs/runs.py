"""A run's folder on the root: config, metrics, environment, result, checkpoints, weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.store import FolderStore, Store

_TREE = Path(__file__).parents[1]
METRICS = "metrics.jsonl"
WEIGHTS = "weights.safetensors"
_RECORDED = ("torch", "torchvision", "numpy", "av", "ray")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`runs/<name>/` of a root, with a local folder to work in; on S3 each file is copied there when it is whole."""

    store: Store
    name: str

    @property
    def local(self) -> Path:
        """The folder itself, or for S3 one of the same content in the user's temporary files."""
        if isinstance(self.store, FolderStore):
            return self.store.folder / "runs" / self.name
        key = hashlib.sha256(f"{self.store.url}/{self.name}".encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"noisyactions-runs-{os.getuid()}" / key

    def prepare(self) -> Path:
        """Make the local folder; on S3 it becomes what the root holds, for a leftover may be stale."""
        self.local.mkdir(parents=True, exist_ok=True)
        if isinstance(self.store, FolderStore):
            return self.local
        there = {key.rpartition("/")[2]: key for key in self.store.list(f"runs/{self.name}/")}
        for path in self.local.iterdir():
            if path.name not in there and not path.name.startswith("."):  # a dot: another rank is still writing it
                path.unlink(missing_ok=True)
        for name, key in there.items():
            part = self.local / f".{name}.{os.getpid()}"
            part.write_bytes(self.store.read(key))
            part.replace(self.local / name)
        return self.local

    def publish(self, *names: str) -> None:
        """Copy whole files to the root, where the local folder is not the root's own."""
        if not isinstance(self.store, FolderStore):
            for name in names:
                self.store.upload(f"runs/{self.name}/{name}", self.local / name)

    def publish_checkpoint(self, path: Path) -> None:
        """Copy a new checkpoint with the metrics so far to the root, then remove those that are no longer kept."""
        if isinstance(self.store, FolderStore):
            return
        self.publish(path.name, METRICS)
        for key in self.store.list(f"runs/{self.name}/checkpoint-"):
            if not (self.local / key.rpartition("/")[2]).exists():
                self.store.delete(key)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a small JSON file there, atomically."""
        data = json.dumps(value, indent=1, sort_keys=True, default=str).encode() + b"\n"
        self.store.write(f"runs/{self.name}/{name}", data)

    def read_json(self, name: str) -> Any:
        """A JSON file of the run, or None if it is not there."""
        try:
            return json.loads(self.store.read(f"runs/{self.name}/{name}"))
        except FileNotFoundError:
            return None

    def weights(self) -> Path:
        """A local copy of the run's finished weights.

        Raises:
            UserError: the run is not there or not finished.
        """
        if self.store.size(f"runs/{self.name}/{WEIGHTS}") is None:
            runs = sorted({key.split("/")[1] for key in self.store.list("runs/")})
            raise UserError(
                f"{self.store.url} has no finished run {self.name!r}; its runs are {', '.join(runs) or 'none'}"
            )
        return self.prepare() / WEIGHTS


def environment() -> dict[str, Any]:
    """What a result depends on beside its config: versions, machine, and the code's commit where git knows it."""
    found = {name: importlib.metadata.version(name) for name in _RECORDED}
    command = ["git", "-C", str(_TREE), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {"commit": commit, "python": platform.python_version(), "machine": platform.machine(), **found}
