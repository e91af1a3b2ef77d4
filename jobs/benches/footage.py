"""The videos that benchmarks work on: a folder of the user's, or rendered ones of a common upload's size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from pipeline.errors import UserError
from pipeline.sandbox.media import Form, encode
from pipeline.sandbox.videos import SandboxVideo, scene_of
from pipeline.sandbox.world import World, WorldConfig, default_cache, write_whole
from pipeline.sources import VIDEO_SUFFIXES

_CONFIG = WorldConfig(num_videos=6, num_photos=0, trouble_rate=0.0)
_FORM = Form(width=640, height=360, rate=Fraction(25), seconds=6.0)


def world() -> World:
    """Six videos, each a file of 640 x 360, 25 frames a second, 6 s, H.264; rendered once and kept.

    Larger than the sandbox's own, for most of a real build's time goes into decoding what people upload.
    """
    made = World(_CONFIG, cache=default_cache() / "bench")
    for video in made:
        path = made.media_path(video)
        if not path.exists():
            write_whole(path, lambda part, video=video: _render(video, part))  # type: ignore[misc]
    return made


def _render(video: SandboxVideo, path: Path) -> None:
    encode(scene_of(video, seed=_CONFIG.seed), _FORM, path=path)


def footage(folder: Path | None) -> Path:
    """The folder itself, or the one with the rendered videos."""
    if folder is not None:
        return folder
    rendered = world()
    return rendered.media_path(rendered.video(0)).parent


def files_in(folder: Path) -> list[Path]:
    """Its video files, sorted.

    Raises:
        UserError: it holds none.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not found:
        raise UserError(f"folder {folder} holds no video files: give --videos another")
    return found
