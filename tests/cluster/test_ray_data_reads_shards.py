import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.records import VideoRecord
from pipeline.shards import Probe, Sample, write_shard

PROBE = Probe(
    width=170, height=128, fps=25.0, num_frames=50, source_codec="h264", source_width=340, source_height=256,
    source_fps=25.0, source_frames=50, source_duration_seconds=2.0, rotation=0, decode_errors=0, source_sha256="0" * 64,
)  # fmt: skip

pytestmark = [
    pytest.mark.cluster,
    # Ray itself warns of its coming defaults and leaves sockets to the collector.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def ray_session() -> Iterator[None]:
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    if started:
        ray.shutdown()


@pytest.mark.usefixtures("ray_session")
def test_ray_data_reads_shards(tmp_path: Path) -> None:
    import ray

    videos = {}
    for number, ids in enumerate((("30", "4"), ("v_Dive_g01-c01",))):
        samples = [Sample(record=VideoRecord(video_id=f"gone{number}"), outcome="gone")]
        for video_id in ids:
            path = tmp_path / video_id
            path.write_bytes(video_id.encode() * 1000)
            videos[video_id] = path.read_bytes()
            samples.append(Sample(record=VideoRecord(video_id=video_id, title="Diving"), path=path, probe=PROBE))
        write_shard(samples, folder=tmp_path, name=f"{number:06d}")
    rows = ray.data.read_webdataset(
        [str(tmp_path / "000000.tar"), str(tmp_path / "000001.tar")], decoder=None
    ).take_all()
    assert {row["__key__"]: row["mp4"] for row in rows} == videos
    assert {row["__key__"]: json.loads(row["json"])["video_id"] for row in rows} == {name: name for name in videos}
