import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.clips import RandomSkips, Windows
from pipeline.crops import CentreCrop
from pipeline.errors import UserError
from pipeline.reader import Item, Reader, read_in_worker, start_workers
from pipeline.store import FolderStore

CROP = CentreCrop(size=32, short_side=48)

KILLED_WHILE_LOADING = """
import os, signal, sys
from pathlib import Path
from pipeline.clips import RandomSkips
from pipeline.crops import CentreCrop
from pipeline.reader import Reader, start_workers
from pipeline.store import FolderStore

if __name__ == "__main__":
    reader = Reader(store=FolderStore(Path(".")), sampler=RandomSkips(), crop=CentreCrop(size=32), seed=0)
    pool = start_workers(reader, workers=1)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def make_item(key: str = "clip.bin", *, size: int = 100, clip: int | None = None) -> Item:
    return Item(key=key, offset=0, size=size, num_frames=40, clip=clip, epoch=0, place=0)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_bytes_that_are_no_video_are_zeros_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "clip.bin").write_bytes(os.urandom(100))
    reader = Reader(store=FolderStore(tmp_path), sampler=Windows(clip_len=4), crop=CROP, seed=0)
    (loaded,) = reader.read([make_item(clip=3)])
    assert (loaded.dropped, loaded.pretext, loaded.num_missing_frames) == ("decode_failed", None, 0)
    assert (loaded.luma.shape, loaded.chroma.shape) == ((1, 4, 32, 32), (1, 4, 2, 16, 16))
    assert not np.any(loaded.luma)


def test_errors_of_a_worker_arrive_as_they_are(tmp_path: Path) -> None:
    reader = Reader(store=FolderStore(tmp_path), sampler=RandomSkips(clip_len=4), crop=CROP, seed=0)
    with start_workers(reader, workers=1) as pool:
        future = pool.submit(read_in_worker, [make_item("shards/000003.tar")])
        with pytest.raises(UserError, match=r"shards/000003.tar is committed but not in .*: run fsck on this root"):
            future.result()


def test_workers_end_when_the_process_they_work_for_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED_WHILE_LOADING)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    # Into a file: a worker that lived on would hold a pipe open and keep us waiting for its end.
    with (tmp_path / "told").open("wb") as told:
        done = subprocess.run(
            [sys.executable, str(script)],
            stdout=told,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=60,
            check=False,
        )
    assert done.returncode == -signal.SIGKILL
    worker = int((tmp_path / "told").read_text())
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)
