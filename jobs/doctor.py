"""Look over this machine: versions, device, FFmpeg's codecs, Ray, S3, Flickr key.

Reads the environment; writes nothing. Exit code 1 if something that every verb needs is missing.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from jobs.progress import show_table
from pipeline.errors import UserError
from pipeline.store import open_store

_PACKAGES = (
    "torch",
    "torchvision",
    "av",
    "ray",
    "webdataset",
    "flickrapi",
    "boto3",
    "transformers",
    "numpy",
    "pyarrow",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look at."""

    root: str | None = None
    """A folder or s3://bucket/prefix that should be there and writable."""
    ray: bool = False
    """Start Ray on this machine too (takes about 10 s)."""


def run(config: Config) -> int:
    """Look, and tell each finding."""
    checks: dict[str, Callable[[], str]] = {
        **{name: lambda name=name: importlib.metadata.version(name) for name in _PACKAGES},  # type: ignore[misc]
        "codecs": _codecs,
        "device": _device,
        "cores and disk": _machine,
        "Flickr key": _flickr_key,
    }
    if config.root is not None:
        checks["root"] = lambda: f"{open_store(str(config.root)).url} is there and writable"
    if config.ray:
        checks["Ray starts"] = _ray
    rows, failed = [], 0
    for name, check in checks.items():
        try:
            rows.append((name, "ok", check()))
        except (UserError, ImportError, importlib.metadata.PackageNotFoundError) as error:
            rows.append((name, "missing", str(error)))
            failed += 1
    show_table("this machine", ("what", "", "found"), rows)
    return 1 if failed else 0


def _codecs() -> str:
    import av

    needed = {"mpeg4", "h264", "hevc", "vp9", "av1"}
    missing = sorted(needed - av.codecs_available)
    if missing:
        raise UserError(f"PyAV's FFmpeg lacks {', '.join(missing)}: reinstall PyAV from its wheel")
    version = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"libavcodec {version} decodes {', '.join(sorted(needed))}"


def _device() -> str:
    from models.runtime import choose_device, choose_precision

    device, reason = choose_device()
    precision, why = choose_precision(device)
    return f"{device} ({reason}), {precision} ({why})"


def _machine() -> str:
    return f"{os.cpu_count()} cores, {shutil.disk_usage('.').free / 1e9:.0f} GB free here"


def _flickr_key() -> str:
    there = os.environ.get("FLICKR_API_KEY") or os.environ.get("FLICKR_API_KEYS")
    return "set" if there else "not set: needed by plan and crawl only (the demo brings its own)"


def _ray() -> str:
    from jobs.launch import Where, session

    with session(Where(workers=1)):
        return "yes, on loopback"
