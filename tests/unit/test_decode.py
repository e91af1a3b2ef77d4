import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode import decode_frames
from pipeline.errors import Dropped

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"


def make_video(
    *,
    num_frames: int = 40,
    codec: str = "mpeg4",
    size: tuple[int, int] = (130, 96),
    options: dict[str, str] | None = None,
) -> bytes:
    """A moving texture in MP4, by default as shards hold videos: MPEG-4 part 2, a key frame every four, no B-frames."""
    width, height = size
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (height // 8 + 20, width // 8 + 20), np.uint8).repeat(8, 0).repeat(8, 1)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream(codec, rate=25, options=options or {"g": "4", "bf": "0", "qmin": "4", "qmax": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            image = texture[number : number + height, 2 * number : 2 * number + width]
            frame = av.VideoFrame.from_ndarray(np.stack([image, image // 2, 255 - image], -1), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def decode_all(data: bytes) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Luma and chroma of every frame, by decoding the file from end to end."""
    with av.open(io.BytesIO(data)) as file:
        found = []
        for frame in file.decode(video=0):
            planes = frame.to_ndarray(format="yuv420p")  # (H * 3 / 2, W): luma rows, then the chroma planes end to end
            height, width = frame.height, frame.width
            chroma = planes[height:].reshape(2, height // 2, width // 2)
            found.append((planes[:height], chroma))
        assert {(f[0].shape) for f in found} == {(height, width)}
        return found


VIDEO = make_video()
EVERY = decode_all(VIDEO)


def assert_frames(
    data: bytes, frames: list[int], every: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]
) -> None:
    planes = decode_frames(data, np.array(frames))
    assert planes.num_missing == 0
    for place, number in enumerate(frames):
        np.testing.assert_array_equal(planes.luma[place], every[number][0])
        np.testing.assert_array_equal(planes.chroma[place], every[number][1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 39), min_size=1, max_size=20))
def test_any_frames_in_any_order_are_those_of_a_whole_decode(frames: list[int]) -> None:
    assert_frames(VIDEO, frames, EVERY)


@pytest.mark.parametrize("options", [{"g": "12", "bf": "2"}, {"g": "40", "bf": "0"}, {"g": "1"}])
def test_other_groups_of_pictures_are_exact_too(options: dict[str, str]) -> None:
    data = make_video(options=options)
    every = decode_all(data)
    for frames in ([0, 7, 14, 21, 28], [39], [5, 6, 7, 30], list(range(40))):
        assert_frames(data, frames, every)


@pytest.mark.skipif(not VIDEOS.exists(), reason="the folder of real videos is not here")
@pytest.mark.parametrize("name", ["demo_340x256_h264_28fps.mp4", "bunny_640x360_h264.mp4", "kinetics_340x256_h264.mp4"])
def test_real_h264_with_b_frames_is_exact(name: str) -> None:
    data = (VIDEOS / name).read_bytes()
    every = decode_all(data)
    assert_frames(data, [0, 3, 6, 50, 51, 130, 133, len(every) - 1], every)


@pytest.mark.skipif(not VIDEOS.exists(), reason="the folder of real videos is not here")
@pytest.mark.parametrize("name", ["bt709_full_range_1280x720.mp4", "hevc_10bit_200x200.mp4"])
def test_other_pixel_formats_become_limited_range_bt601(name: str) -> None:
    data = (VIDEOS / name).read_bytes()
    with av.open(io.BytesIO(data)) as file:
        rgb = next(file.decode(video=0)).to_ndarray(format="rgb24").astype(float)
    luma = decode_frames(data, np.array([0])).luma[0]
    expected = 16 + 219 / 255 * (rgb @ [0.299, 0.587, 0.114])
    assert (
        np.abs(luma - expected).mean() < 1.5
    )  # rounding and chroma upsampling; the wrong matrix or range gives 3 to 12


def test_odd_sizes_lose_their_last_row_and_column() -> None:
    planes = decode_frames(make_video(size=(131, 97), num_frames=4), np.array([0, 1]))
    assert planes.luma.shape == (2, 96, 130)
    assert planes.chroma.shape == (2, 2, 48, 65)


def test_a_truncated_file_gives_what_it_has() -> None:
    # The index comes last in our files, so cut the video's bytes from the middle of the data and keep the index.
    broken = bytearray(VIDEO)
    start = VIDEO.index(b"mdat") + 4
    middle = start + int.from_bytes(VIDEO[start - 8 : start - 4], "big") // 2
    end = VIDEO.rindex(b"moov") - 4
    broken[middle:end] = bytes(end - middle)
    planes = decode_frames(bytes(broken), np.array([0, 1, 2, 38, 39]))
    np.testing.assert_array_equal(planes.luma[0], EVERY[0][0])
    assert planes.num_missing == 2
    np.testing.assert_array_equal(planes.luma[3], planes.luma[2])  # the nearest before stands in


def test_frames_past_the_end_are_missing() -> None:
    planes = decode_frames(VIDEO, np.array([39, 40, 41]))
    assert planes.num_missing == 2
    np.testing.assert_array_equal(planes.luma[2], EVERY[39][0])
    with pytest.raises(Dropped, match="decode_failed: none of 2 frames could be decoded"):
        decode_frames(VIDEO, np.array([40, 41]))


@pytest.mark.parametrize("data", [b"", b"not a video", VIDEO[:200], VIDEO[: len(VIDEO) // 2]])
def test_what_is_no_video_is_dropped(data: bytes) -> None:
    with pytest.raises(Dropped, match="decode_failed"):
        decode_frames(data, np.arange(16))


def test_sound_without_pictures_has_no_video_stream() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    with pytest.raises(Dropped, match="no_video_stream"):
        decode_frames(buffer.getvalue(), np.arange(4))


def test_absurd_sizes_are_refused() -> None:
    with pytest.raises(Dropped, match="decode_failed: frames of 4112x4096 pixels"):
        decode_frames(make_video(num_frames=1, size=(4112, 4096)), np.array([0]))


def test_corrupt_bytes_are_decoded_or_dropped_and_nothing_else() -> None:
    outcomes = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        data = np.frombuffer(VIDEO, np.uint8).copy()
        places = rng.integers(0, len(data), rng.choice([1, 20, 400]))
        data[places] ^= rng.integers(1, 256, len(places)).astype(np.uint8)
        try:
            planes = decode_frames(data.tobytes(), np.arange(0, 40, 2))
        except Dropped as drop:
            outcomes.append(drop.reason)
        else:
            assert planes.luma.shape[0] == planes.chroma.shape[0] == 20
            outcomes.append("ok")
    assert 10 < outcomes.count("ok") < 100, outcomes
