"""Clips from shards: decoding alone, then the loader's stages one by one, then the usual ways on the same videos."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
import webdataset
from av.video.reformatter import Interpolation
from torch.nn.functional import interpolate

from jobs import build
from jobs.benches.contest import Report, compete, score_rows
from jobs.benches.footage import footage
from jobs.benches.likeness import luma_ssim
from jobs.benches.peers import decord_frames, pyav_frames, torchcodec_frames, x264_default
from pipeline.augment import augment, for_training
from pipeline.clips import RandomSkips
from pipeline.crops import MultiScaleCrop, crop_planes, use_one_thread
from pipeline.decode import decode_frames
from pipeline.errors import UserError
from pipeline.index import INDEX_COLUMNS, Index, build_index
from pipeline.loader import Batch, Loader
from pipeline.shards import read_rows
from pipeline.sources import folder_records
from pipeline.store import FolderStore

_SAMPLER = RandomSkips()
_CROP = MultiScaleCrop()
_EPOCHS = 8  # in a round: few videos give few clips each

_DECODE, _LOADER, _AUGMENT = "decode: the limit", "+ batch: our loader", "+ colour and augmentation"
_WORKERS, _SAME, _X264 = "our loader, 2 workers", "webdataset + PyAV, our shards", "webdataset + PyAV, x264 defaults"

Decode = Callable[[bytes, list[int]], Any]


@dataclass(frozen=True, kw_only=True)
class Config:
    """On which videos, and for how long."""

    videos: Path | None = None
    """A folder of videos; without one, six rendered ones of 640 x 360."""
    seconds: float = 20.0
    """Begin no new round after these."""
    json: bool = False
    """End with the ratios as one line of JSON."""


@dataclass(frozen=True, slots=True)
class _Shards:
    """The same videos twice: as our build stores them, and as x264 does without options."""

    store: FolderStore
    index: Index
    x264: Path
    """A tar."""
    ssim: float
    bytes_per_frame: float


def measure(config: Config) -> Report:
    """Clips of 16 frames, 1 to 5 frames apart, cropped to 112 x 112, per second of CPU time."""
    use_one_thread()
    with TemporaryDirectory(prefix="noisyactions-bench-") as name, contextlib.ExitStack() as stack:
        shards = _prepare(footage(config.videos), Path(name))
        here = stack.enter_context(_loader(shards, workers=0))
        beside = stack.enter_context(_loader(shards, workers=2))
        contenders = {
            _DECODE: _read(shards, crop=False),
            "+ crop": _read(shards, crop=True),
            _LOADER: _load(here),
            _AUGMENT: _load(here, then=_augment),
            _WORKERS: _load(beside),
            _SAME: _peer(shards.store.path(shards.index.shard_keys[0]), pyav_frames),
            _X264: _peer(shards.x264, pyav_frames),
        }
        absent = [name for name in ("torchcodec", "decord") if importlib.util.find_spec(name) is None]
        if "torchcodec" not in absent:
            contenders["torchcodec, x264 defaults"] = _peer(shards.x264, torchcodec_frames)
        if "decord" not in absent:
            contenders["decord, x264 defaults"] = _peer(shards.x264, decord_frames)
        contenders[_WORKERS]()  # starts them
        scores = compete(contenders, seconds=config.seconds)
    rates = {name: score.rate() for name, score in scores.items()}
    ours, torchcodec = rates[_LOADER], rates.get("torchcodec, x264 defaults")
    return Report(
        title=f"loader: {len(shards.index)} videos, clips of 16 frames",
        columns=("way", "clips per CPU s", "rounds from-to", "of the limit"),
        rows=[
            *score_rows(scores, limit=_DECODE),
            *((f"{name}, x264 defaults", "not installed", "", "") for name in absent),
        ],
        ratios={
            "clips_per_second_per_core": ours,
            "loader_share_of_decode": ours / rates[_DECODE],
            "workers_share_of_decode": rates[_WORKERS] / rates[_DECODE],
            "times_webdataset_pyav": ours / rates[_SAME],
            "times_webdataset_pyav_with_colour": rates[_AUGMENT] / rates[_SAME],
            "times_webdataset_pyav_x264": ours / rates[_X264],
            "bytes_per_frame": shards.bytes_per_frame,
            "ssim": shards.ssim,
            "times_torchcodec_default": None if torchcodec is None else ours / torchcodec,
        },
        limit="After decoding it is the resizing of crops; colour conversion is left to the training device, so on a "
        "GPU the loader's row counts, on a CPU the one with colour. The peers deliver cropped RGB, not augmented.",
    )


def _prepare(videos: Path, folder: Path) -> _Shards:
    root = folder / "root"
    with contextlib.redirect_stdout(io.StringIO()):
        build.run(build.Config(root=str(root), folder=videos))
    store = FolderStore(root)
    rows = read_rows(store, columns=(*INDEX_COLUMNS, "source_frames", "rotation"))
    found = [row for row in rows.to_pylist() if row["outcome"] == "ok"]
    index = build_index(rows, labels={row["video_id"]: (0,) for row in found}, num_classes=1)
    sources = {r.video_id: Path(unquote(urlsplit(r.renditions[0].url).path)) for r in folder_records(videos)}
    with tarfile.open(folder / "x264.tar", "w") as tar:
        for row in found:
            path = folder / "x264.mp4"
            x264_default(sources[row["video_id"]], path)
            _add(tar, f"{row['video_id']}.mp4", path.read_bytes())
            _add(tar, f"{row['video_id']}.json", json.dumps({"num_frames": row["num_frames"]}).encode())
    likeness = []
    for row in found:
        if row["num_frames"] == row["source_frames"] and not row["rotation"]:
            path = folder / "stored.mp4"
            path.write_bytes(store.read_range(row["shard"], start=row["mp4_offset"], length=row["mp4_size"]))
            source = sources[row["video_id"]]
            likeness.append(luma_ssim(source, path, interpolation=Interpolation.BILINEAR, as_601=True))
    if not likeness:
        raise UserError("no video keeps its frames one by one: give --videos of 30 fps or less")
    frames = sum(row["num_frames"] for row in found)
    size = sum(row["mp4_size"] for row in found)
    return _Shards(store, index, folder / "x264.tar", fmean(likeness), size / frames)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _loader(shards: _Shards, *, workers: int) -> Loader:
    return Loader(
        store=shards.store,
        index=shards.index,
        sampler=_SAMPLER,
        crop=_CROP,
        batch_size=min(len(shards.index), 16),
        workers=workers,
    )


def _load(loader: Loader, then: Callable[[Batch], object] | None = None) -> Callable[[], float]:
    epochs = itertools.count()

    def once() -> float:
        clips = 0
        for epoch in itertools.islice(epochs, _EPOCHS):
            for batch in loader.epoch(epoch):
                clips += len(batch.luma)
                if then is not None:
                    then(batch)
        return clips

    return once


def _augment(batch: Batch) -> torch.Tensor:
    return augment(batch.luma, batch.chroma, position=batch.position, how=for_training())


def _read(shards: _Shards, *, crop: bool) -> Callable[[], float]:
    """The stages that a loader cannot do without, by themselves."""
    rng, index = np.random.default_rng(0), shards.index

    def once() -> float:
        for row in [*range(len(index))] * _EPOCHS:
            start, length = int(index.offsets[row]), int(index.sizes[row])
            data = shards.store.read_range(index.shard_keys[index.shards[row]], start=start, length=length)
            frames = _SAMPLER.pick(int(index.num_frames[row]), rng=rng).frames[0]
            planes = decode_frames(data, frames)
            if crop:
                box = _CROP.box(height=planes.luma.shape[1], width=planes.luma.shape[2], rng=rng)
                crop_planes(planes.luma, planes.chroma, box=box, size=_CROP.size)
        return len(index) * _EPOCHS

    return once


def _peer(tar: Path, decode: Decode) -> Callable[[], float]:
    """Plain webdataset over a shard, each clip decoded to RGB, cropped and resized, then batched."""
    rng = np.random.default_rng(0)

    def clip(sample: dict[str, Any]) -> torch.Tensor:
        num_frames = json.loads(sample["json"])["num_frames"]
        frames = torch.as_tensor(decode(sample["mp4"], _SAMPLER.pick(num_frames, rng=rng).frames[0].tolist()))
        rgb = frames if frames.shape[1] == 3 else frames.permute(0, 3, 1, 2)
        box = _CROP.box(height=rgb.shape[2], width=rgb.shape[3], rng=rng)
        square = rgb[:, :, box.top : box.top + box.side, box.left : box.left + box.side].contiguous()
        return interpolate(square, size=(_CROP.size, _CROP.size), mode="bilinear", antialias=True)

    def samples() -> Iterator[torch.Tensor]:
        yield from webdataset.WebDataset([str(tar)], shardshuffle=False, empty_check=False).map(clip)

    def once() -> float:
        return sum(len(torch.stack(list(samples()))) for _ in range(_EPOCHS))

    return once
