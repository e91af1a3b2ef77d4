import io
from fractions import Fraction
from pathlib import Path

import av
import boto3
import numpy as np
import pytest
import torch
from moto.server import ThreadedMotoServer

from pipeline.clips import RandomSkips, Uniform, VcpTuples, Windows
from pipeline.crops import CentreCrop, MultiScaleCrop
from pipeline.decode import decode_frames
from pipeline.errors import UserError
from pipeline.index import INDEX_COLUMNS, Index, build_index
from pipeline.loader import Batch, Loader
from pipeline.records import VideoRecord
from pipeline.shards import Probe, Sample, publish_shard, read_rows, write_shard
from pipeline.store import FolderStore, S3Store, Store
from pipeline.units import Ledger, Unit

FRAMES = (20, 33, 8, 70, 64, 16, 90, 40, 25, 130)
"""Of videos v00, v01, ...; v04 is not a video at all."""
BROKEN = 4
CROP = CentreCrop(size=32, short_side=48)


def make_video(num_frames: int, *, seed: int) -> bytes:
    """A moving texture, stored as shards hold videos."""
    texture = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=25, options={"g": "4", "bf": "0", "qmin": "4", "qmax": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            image = np.ascontiguousarray(texture[number : number + 48, 2 * number : 2 * number + 64])
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def fill(store: Store, folder: Path) -> None:
    """Three shards of videos, and a record that was dropped."""
    ledger = Ledger(store, "build", {})
    ledger.open()
    samples = [Sample(record=VideoRecord(video_id="gone"), outcome="gone")]
    for number, frames in enumerate(FRAMES):
        path = folder / f"v{number:02d}.mp4"
        path.write_bytes(b"no video" * 50 if number == BROKEN else make_video(frames, seed=number))
        probe = Probe(
            width=64, height=48, fps=25.0, num_frames=frames, source_codec="h264", source_width=64, source_height=48,
            source_fps=25.0, source_frames=frames, source_duration_seconds=1.0, rotation=0, decode_errors=0,
            source_sha256="0",
        )  # fmt: skip
        samples.append(Sample(record=VideoRecord(video_id=path.stem), path=path, probe=probe))
    for number in range(3):
        files = write_shard(samples[number::3], folder=folder, name=f"{number:06d}")
        assert publish_shard(ledger, unit=Unit(f"{number:06d}"), files=files)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    store = FolderStore(tmp_path_factory.mktemp("root"))
    fill(store, tmp_path_factory.mktemp("videos"))
    return store


@pytest.fixture(scope="module")
def index(store: FolderStore) -> Index:
    labels = {f"v{number:02d}": [number % 3, 3] for number in range(len(FRAMES))}
    return build_index(read_rows(store, columns=INDEX_COLUMNS), labels=labels, num_classes=4)


def rows_of(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.index for batch in batches]).tolist()


def assert_same(first: Batch, second: Batch) -> None:
    for name in ("luma", "chroma", "labels", "weight", "index"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert (first.position, first.undecodable) == (second.position, second.undecodable)


def test_a_training_batch_is_what_its_types_say(store: FolderStore, index: Index) -> None:
    loader = Loader(
        store=store, index=index, sampler=RandomSkips(clip_len=8), crop=MultiScaleCrop(size=32), batch_size=4
    )
    batches = list(loader.epoch(0))
    assert len(batches) == loader.steps_per_epoch == 2
    for batch in batches:
        assert (batch.luma.shape, batch.luma.dtype) == ((4, 1, 8, 32, 32), torch.uint8)
        assert (batch.chroma.shape, batch.chroma.dtype) == ((4, 1, 8, 2, 16, 16), torch.uint8)
        assert (batch.labels.shape, batch.labels.dtype) == ((4, 4), torch.float32)
        assert (batch.weight.dtype, batch.index.dtype, batch.pretext) == (torch.float32, torch.int64, None)
        for place, row in enumerate(batch.index.tolist()):
            assert batch.labels[place].nonzero().flatten().tolist() == sorted({row % 3, 3})
    assert len(set(rows_of(batches))) == 8
    assert rows_of(batches) != rows_of(list(loader.epoch(1)))


def test_what_cannot_be_decoded_is_weightless_zeros_and_named(store: FolderStore, index: Index) -> None:
    loader = Loader(store=store, index=index, sampler=RandomSkips(clip_len=8), crop=CROP, batch_size=10)
    (batch,) = loader.epoch(0)
    place = batch.index.tolist().index(BROKEN)
    assert batch.undecodable == ((BROKEN, "decode_failed"),)
    assert batch.weight.tolist() == [0.0 if i == place else 1.0 for i in range(10)]
    assert not batch.luma[place].any()
    assert not batch.chroma[place].any()
    assert all(batch.luma[i].any() for i in range(10) if i != place)
    assert sorted(batch.index.tolist()) == list(range(10))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_are_one_rank(store: FolderStore, index: Index, world_size: int) -> None:
    def load(rank: int, world_size: int) -> list[Batch]:
        crop, sampler = MultiScaleCrop(size=32), RandomSkips(clip_len=8)
        ranks = {"rank": rank, "world_size": world_size}
        loader = Loader(store=store, index=index, sampler=sampler, crop=crop, batch_size=4, seed=3, **ranks)
        return list(loader.epoch(2))

    whole, parts = load(0, 1), [load(rank, world_size) for rank in range(world_size)]
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        for name in ("luma", "chroma", "labels", "weight", "index"):
            assert torch.equal(torch.cat([getattr(share, name) for share in shares]), getattr(batch, name)), name
        assert [share.position.first for share in shares] == [rank * 4 // world_size for rank in range(world_size)]


def test_resuming_gives_the_same_batches(store: FolderStore, index: Index) -> None:
    loader = Loader(store=store, index=index, sampler=RandomSkips(), crop=MultiScaleCrop(size=32), batch_size=2)
    whole, resumed = list(loader.epoch(1)), list(loader.epoch(1, start_step=3))
    assert len(resumed) == len(whole) - 3
    for first, second in zip(whole[3:], resumed, strict=True):
        assert_same(first, second)
    assert list(loader.epoch(1, start_step=5)) == []


def test_workers_give_the_same_batches_and_survive_an_abandoned_epoch(store: FolderStore, index: Index) -> None:
    settings = {"sampler": VcpTuples(clip_len=4, interval=2), "crop": MultiScaleCrop(size=32), "batch_size": 3}
    longer = index.at_least(16)
    alone = list(Loader(store=store, index=longer, **settings).epoch(0))
    with Loader(store=store, index=longer, workers=2, **settings) as loader:
        next(loader.epoch(0))  # and no more of it
        for first, second in zip(alone, loader.epoch(0), strict=True):
            assert_same(first, second)
            assert second.pretext is not None
            assert torch.equal(first.pretext, second.pretext)


def test_tuples_are_three_clips_and_a_label(store: FolderStore, index: Index) -> None:
    loader = Loader(store=store, index=index.at_least(64), sampler=VcpTuples(), crop=CROP, batch_size=4)
    (batch,) = loader.epoch(0)
    assert batch.luma.shape == (4, 3, 16, 32, 32)
    assert (batch.pretext.shape, batch.pretext.dtype) == ((4,), torch.int64)
    assert set(batch.pretext.tolist()) <= set(range(5))


def test_evaluation_sees_each_clip_once_and_pads(store: FolderStore, index: Index) -> None:
    seen: list[tuple[int, bytes]] = []
    for rank in range(2):
        loader = Loader(store=store, index=index, sampler=Windows(), crop=CROP, batch_size=8, rank=rank, world_size=2)
        batches = list(loader.epoch(0))
        assert len(batches) == loader.steps_per_epoch
        for batch in batches:
            assert batch.luma.shape == (4, 1, 16, 32, 32)
            broken = {row for row, _ in batch.undecodable}
            for place, row in enumerate(batch.index.tolist()):
                if batch.weight[place] or row in broken:
                    seen.append((row, batch.luma[place].numpy().tobytes()))
                else:
                    assert not batch.luma[place].any()
    counts = np.bincount([row for row, _ in seen])
    assert counts.tolist() == [max(frames // 16, 1) for frames in FRAMES]
    assert len(set(seen)) == sum(counts) - counts[BROKEN] + 1  # all different, but for the zeros of the broken one


def test_a_rank_with_nothing_left_gets_padding(store: FolderStore, index: Index) -> None:
    loader = Loader(
        store=store,
        index=index,
        sampler=Uniform(clip_len=8, num_clips=1),
        crop=CROP,
        batch_size=8,
        rank=1,
        world_size=2,
    )
    last = list(loader.epoch(0))[-1]  # 10 clips: the first rank has 4 and 2, this one 4 and none
    assert (last.weight.tolist(), last.index.tolist(), last.undecodable) == ([0.0] * 4, [0] * 4, ())
    assert last.luma.shape == (4, 1, 8, 32, 32)
    assert last.chroma.shape == (4, 1, 8, 2, 16, 16)


def test_clips_are_the_frames_that_were_asked_for(store: FolderStore, index: Index) -> None:
    whole = CentreCrop(size=48, short_side=48)
    loader = Loader(store=store, index=index, sampler=Windows(clip_len=8), crop=whole, batch_size=1)
    batches = [batch for batch in loader.epoch(0) if batch.index.item() == 3]
    data = store.read_range(index.shard_keys[index.shards[3]], start=int(index.offsets[3]), length=int(index.sizes[3]))
    planes = decode_frames(data, np.arange(64))
    np.testing.assert_array_equal(torch.cat([b.luma[0, 0] for b in batches]).numpy(), planes.luma[:, :, 8:56])
    np.testing.assert_array_equal(torch.cat([b.chroma[0, 0] for b in batches]).numpy(), planes.chroma[:, :, :, 4:28])


def test_single_labels_and_none_at_all(store: FolderStore) -> None:
    rows = read_rows(store, columns=INDEX_COLUMNS)
    single = build_index(rows, labels={"v00": [2], "v01": [0]}, num_classes=3, kind="single")
    (batch,) = Loader(store=store, index=single, sampler=RandomSkips(), crop=CROP, batch_size=2).epoch(0)
    assert batch.labels.tolist() == [[2, 0][row] for row in batch.index]
    unlabelled = build_index(rows, labels={"v00": [], "v01": []}, num_classes=0)
    (batch,) = Loader(store=store, index=unlabelled, sampler=RandomSkips(), crop=CROP, batch_size=2).epoch(0)
    assert batch.labels.shape == (2, 0)


def test_settings_that_cannot_work_are_refused(store: FolderStore, index: Index) -> None:
    common = {"store": store, "index": index, "crop": CROP}
    with pytest.raises(
        UserError, match=r"6 of 10 videos have fewer than the 64 frames that VcpTuples needs: leave them"
    ):
        Loader(sampler=VcpTuples(), batch_size=2, **common)
    with pytest.raises(UserError, match="10 videos do not fill one batch of 16: lower batch_size"):
        Loader(sampler=RandomSkips(), batch_size=16, **common)
    with pytest.raises(UserError, match="batch_size 5 must be a multiple of the 2 ranks"):
        Loader(sampler=RandomSkips(), batch_size=5, world_size=2, **common)
    with pytest.raises(UserError, match="workers -1 must be at least 0"):
        Loader(sampler=RandomSkips(), batch_size=5, workers=-1, **common)


def test_a_shard_that_went_missing_is_told(tmp_path: Path, index: Index) -> None:
    loader = Loader(store=FolderStore(tmp_path), index=index, sampler=RandomSkips(), crop=CROP, batch_size=2)
    with pytest.raises(UserError, match=r"shards/00000\d.tar is committed but not in .*: run fsck on this root"):
        next(loader.epoch(0))


def test_s3_gives_the_same_batches(
    store: FolderStore, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        boto3.client("s3").create_bucket(Bucket="loader")
        bucket = S3Store("loader", "root")
        fill(bucket, tmp_path)
        batches = {}
        for name, root in (("folder", store), ("s3", bucket)):
            loader = Loader(store=root, index=index, sampler=RandomSkips(), crop=CROP, batch_size=4)
            batches[name] = list(loader.epoch(0))
        for first, second in zip(batches["folder"], batches["s3"], strict=True):
            assert_same(first, second)
    finally:
        server.stop()
