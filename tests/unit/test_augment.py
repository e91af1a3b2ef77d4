from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from pipeline.augment import (
    Augmentation,
    augment,
    blur,
    brighten,
    contrast,
    draw,
    for_evaluation,
    for_pretext,
    for_training,
    grey,
    normalise,
    saturate,
    to_rgb,
    turn_hue,
)
from pipeline.errors import UserError
from pipeline.order import Position


def make_position(*, step: int = 0, first: int = 0, global_size: int = 8, epoch: int = 0) -> Position:
    return Position(seed=5, epoch=epoch, step=step, first=first, global_size=global_size)


def make_planes(size: int = 8, clips: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    luma = torch.randint(0, 256, (size, clips, 4, 32, 32), dtype=torch.uint8, generator=g)
    chroma = torch.randint(0, 256, (size, clips, 4, 2, 16, 16), dtype=torch.uint8, generator=g)
    return luma, chroma


def make_rgb(clips: int = 3) -> torch.Tensor:
    """(N, 3, T, H, W) in [0, 1], with some pure greys among the colours."""
    rgb = torch.rand(clips, 3, 4, 32, 40, generator=torch.Generator().manual_seed(1))
    rgb[..., :4] = rgb[:, :1, ..., :4]
    return rgb


def per_clip(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1, 1)


def frames_of(clip: torch.Tensor) -> torch.Tensor:
    """(3, T, H, W) -> (T, 3, H, W), as torchvision wants a video."""
    return clip.transpose(0, 1)


@pytest.mark.parametrize(("ours", "theirs", "values"), [
    (brighten, tv.adjust_brightness, (0.6, 1.0, 1.4)),
    (contrast, tv.adjust_contrast, (0.6, 1.0, 1.4)),
    (saturate, tv.adjust_saturation, (0.6, 1.0, 1.4)),
    (turn_hue, tv.adjust_hue, (-0.1, 0.0, 0.1)),
    (turn_hue, tv.adjust_hue, (-0.5, 0.37, 0.5)),
])  # fmt: skip
def test_each_clip_changes_as_torchvision_would(
    ours: Callable[..., torch.Tensor], theirs: Callable[..., torch.Tensor], values: tuple[float, ...]
) -> None:
    rgb = make_rgb()
    changed = ours(rgb, per_clip(*values))
    for clip, value in enumerate(values):
        torch.testing.assert_close(frames_of(changed[clip]), theirs(frames_of(rgb[clip]), value), atol=1e-5, rtol=0)


def test_grey_is_torchvisions() -> None:
    rgb = make_rgb(1)
    torch.testing.assert_close(frames_of(grey(rgb)[0]), tv.rgb_to_grayscale(frames_of(rgb[0]), 3), atol=1e-6, rtol=0)


def test_blur_is_torchvisions() -> None:
    rgb, sigma = make_rgb(), np.array([0.1, 0.9, 2.0])
    blurred = blur(rgb, sigma=sigma, largest=2.0)
    for clip, deviation in enumerate(sigma):
        expected = tv.gaussian_blur(frames_of(rgb[clip]), kernel_size=[13, 13], sigma=[deviation] * 2)
        torch.testing.assert_close(frames_of(blurred[clip]), expected, atol=1e-5, rtol=0)


def test_colours_come_back_from_their_planes() -> None:
    for colour in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.8, 0.1, 0.2), (0.1, 0.7, 0.3), (0.2, 0.3, 0.9)):
        r, g, b = colour
        y = 0.299 * r + 0.587 * g + 0.114 * b
        for full, (low, span, reach) in ((False, (16, 219, 224)), (True, (0, 255, 255))):
            luma = torch.full((1, 1, 4, 4), round(low + span * y), dtype=torch.uint8)
            chroma = torch.empty((1, 1, 2, 2, 2), dtype=torch.uint8)
            chroma[:, :, 0] = round(128 + reach * (b - y) / 1.772) if (b - y) / 1.772 * reach < 127.5 else 255
            chroma[:, :, 1] = round(128 + reach * (r - y) / 1.402)
            rgb = to_rgb(luma, chroma, full_range=full)
            assert rgb.shape == (1, 3, 1, 4, 4)
            torch.testing.assert_close(rgb[0, :, 0, 1, 1], torch.tensor(colour), atol=0.012, rtol=0)


def test_chroma_is_upsampled_smoothly() -> None:
    luma = torch.full((1, 1, 4, 4), 126, dtype=torch.uint8)
    chroma = torch.full((1, 1, 2, 2, 2), 128, dtype=torch.uint8)
    chroma[0, 0, 1, :, 1] = 168
    red = to_rgb(luma, chroma)[0, 0, 0, 0]
    steps = red.diff()
    assert (steps > 0).all()  # a quarter, a half, a quarter of the way
    torch.testing.assert_close(steps / steps.sum(), torch.tensor([0.25, 0.5, 0.25]), atol=1e-4, rtol=0)


def test_normalisations() -> None:
    x = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 3, 1, 1).expand(1, 3, 3, 1, 1)
    ranges = {how: normalise(x, how)[0, 0, :, 0, 0].tolist() for how in ("unit", "paper_text", "paper_code")}
    assert ranges == {"unit": [0, 0.5, 1], "paper_text": [-1, 0, 1], "paper_code": [-1, 254, 509]}
    expected = tv.normalize(frames_of(x[0]), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(frames_of(normalise(x, "imagenet")[0]), expected)


def test_evaluation_is_the_colours_alone() -> None:
    luma, chroma = make_planes()
    clips = augment(luma, chroma, position=make_position(), how=for_evaluation("unit"))
    assert (clips.shape, clips.dtype) == ((8, 3, 3, 4, 32, 32), torch.float32)
    torch.testing.assert_close(clips.flatten(0, 1), to_rgb(luma.flatten(0, 1), chroma.flatten(0, 1)))


def test_frames_of_a_clip_share_one_draw_and_clips_do_not() -> None:
    luma, chroma = (planes[:, :, :1].expand_as(planes) for planes in make_planes())  # the same frame all along
    luma, chroma = (planes[:1, :1].expand_as(planes) for planes in (luma, chroma))  # and the same clip
    clips = augment(luma, chroma, position=make_position(), how=for_pretext()).flatten(0, 1)
    torch.testing.assert_close(clips, clips[:, :, :1].expand_as(clips))
    different = {tuple(clip[:, 0, 3, :5].flatten().tolist()) for clip in clips}
    assert len(different) > 20


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_any_split_over_ranks_gives_the_same_clips(world_size: int) -> None:
    luma, chroma = make_planes()
    whole = augment(luma, chroma, position=make_position(), how=for_pretext())
    share = 8 // world_size
    parts = [
        augment(luma[i : i + share], chroma[i : i + share], position=make_position(first=i), how=for_pretext())
        for i in range(0, 8, share)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)


def test_steps_and_epochs_differ_and_repeat() -> None:
    luma, chroma = make_planes()
    first, again, step, epoch = (
        augment(luma, chroma, position=position, how=for_training())
        for position in (make_position(), make_position(), make_position(step=1), make_position(epoch=1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, step)
    assert not torch.equal(first, epoch)


def test_training_flips_half_of_the_clips_and_does_nothing_else() -> None:
    luma, chroma = make_planes()
    plain = augment(luma, chroma, position=make_position(), how=for_evaluation())
    flipped = augment(luma, chroma, position=make_position(), how=for_training())
    mirrored = [
        bool(torch.equal(a, b.flip(-1))) for a, b in zip(flipped.flatten(0, 1), plain.flatten(0, 1), strict=True)
    ]
    same = [bool(torch.equal(a, b)) for a, b in zip(flipped.flatten(0, 1), plain.flatten(0, 1), strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 4 < sum(mirrored) < 20


def test_the_whole_of_it_is_torchvisions_in_the_order_drawn() -> None:
    luma, chroma = make_planes()
    how, position = for_pretext(), make_position(step=3)
    draws = draw(position, size=8, clips=3, how=how)
    assert min(draws.flip.sum(), draws.jitter.sum(), draws.grey.sum(), draws.blur.sum()) > 0
    clips = augment(luma, chroma, position=position, how=how).flatten(0, 1)
    plain = to_rgb(luma.flatten(0, 1), chroma.flatten(0, 1))
    adjust = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)
    for clip in range(24):
        frames = frames_of(plain[clip])
        for operation in draws.order[clip] if draws.jitter[clip] else ():
            frames = adjust[operation](frames, float(draws.strengths[clip, operation]))
        frames = tv.rgb_to_grayscale(frames, 3) if draws.grey[clip] else frames
        frames = tv.gaussian_blur(frames, [13, 13], [float(draws.sigma[clip])] * 2) if draws.blur[clip] else frames
        frames = tv.horizontal_flip(frames) if draws.flip[clip] else frames
        frames = tv.normalize(frames, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(frames_of(clips[clip]), frames, atol=1e-3, rtol=0)


def test_draws_are_as_often_and_as_far_as_they_should_be() -> None:
    draws = draw(make_position(global_size=4000), size=4000, clips=1, how=for_pretext())
    rates = [draws.flip.mean(), draws.jitter.mean(), draws.grey.mean(), draws.blur.mean()]
    np.testing.assert_allclose(rates, [0.5, 0.8, 0.2, 0.5], atol=0.04)
    np.testing.assert_allclose(draws.strengths.min(0), [0.6, 0.6, 0.6, -0.1], atol=0.01)
    np.testing.assert_allclose(draws.strengths.max(0), [1.4, 1.4, 1.4, 0.1], atol=0.01)
    np.testing.assert_allclose([draws.sigma.min(), draws.sigma.max()], [0.1, 2.0], atol=0.01)
    orders = np.unique(draws.order, axis=0, return_counts=True)
    assert len(orders[0]) == 24
    assert orders[1].min() > 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    luma, chroma = make_planes()
    there = augment(luma.cuda(), chroma.cuda(), position=make_position(), how=for_pretext())
    here = augment(luma, chroma, position=make_position(), how=for_pretext())
    torch.testing.assert_close(there.cpu(), here, atol=2e-2, rtol=0)  # the blur is a convolution, in TF32 there


@pytest.mark.parametrize(("make", "text"), [
    (lambda: Augmentation(flip_probability=1.5), "flip_probability 1.5 must be 0 to 1"),
    (lambda: Augmentation(blur_sigma=(0.0, 2.0)), r"blur_sigma \(0.0, 2.0\) must be a range above 0"),
    (lambda: Augmentation(hue=0.7), "hue 0 to 0.5"),
])  # fmt: skip
def test_bad_settings_are_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()
