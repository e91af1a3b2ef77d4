"""What every test shares: where the real videos and official lists are, and a small real video."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

SHARED = Path(__file__).parents[2] / "shared"

# A test's own settings come from its arguments, not from the shell it was started in.
for _name in ("FLICKR_REST_URL", "FLICKR_API_KEY", "FLICKR_API_KEYS", "FLICKR_API_SECRET", "FLICKR_CONTACT"):
    os.environ.pop(_name, None)

# The budgets of tests are no real key's: they are kept apart from the user's, and thrown away.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="noisyactions-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real videos and official lists; tests that need them are skipped by name where they are not."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


def _write_video(path: Path, *, frames: int = 30, width: int = 96, height: int = 64, codec: str = "mpeg4") -> Path:
    """A small real video of a bright square that moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.full((height, width, 3), 40, np.uint8)
            left = number * 2 % (width - 16)
            picture[16:32, left : left + 16] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Writes a small real video: `write_video(path, frames=30, width=96, height=64, codec="mpeg4")`."""
    return _write_video


@pytest.fixture
def video_folder(tmp_path: Path) -> Path:
    """Five real videos of several codecs and containers in two labelled folders."""
    folder = tmp_path / "videos"
    _write_video(folder / "swing" / "a.mp4")
    _write_video(folder / "swing" / "b.avi", frames=40)
    _write_video(folder / "dive" / "c.mkv", codec="libx264", width=64, height=96)
    _write_video(folder / "dive" / "d.mov", frames=12)
    _write_video(folder / "dive" / "e e.mp4", frames=50)
    return folder
