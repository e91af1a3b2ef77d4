"""The paper's two networks: 3D-ResNet-18 and R(2+1)D-18 of Hara et al. (https://arxiv.org/abs/1711.09577).

Architecture and state-dict names follow github.com/kenshohara/3D-ResNets-PyTorch (7x7x7 stem, max-pool, shortcut B),
which the paper's authors used; torchvision's networks of the same names differ (3x7x7 stem, no max-pool, five times
the compute). One deviation: pooling is adaptive, so that any clip size works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Shortcut = Literal["A", "B"]

_PREFIXES = ("module.", "_orig_mod.", "backbone.", "base_network.")
"""What wrappers and other repositories put before a backbone's own names."""


def _add_convolution(
    owner: nn.Module, number: int, channels: tuple[int, int], kernel: int, stride: tuple[int, int], *, factorised: bool
) -> None:
    """Register a cubic convolution and its batch norm on `owner` under Hara's names; `stride` is (time, space)."""
    inside, outside = channels
    pad, (over_time, over_space) = kernel // 2, stride

    def add(suffix: str, wide: tuple[int, int], size: tuple[int, int], step: tuple[int, int]) -> None:
        in_time, in_space = (pad if extent > 1 else 0 for extent in size)
        sizes, steps, padding = ((t, s, s) for t, s in (size, step, (in_time, in_space)))
        owner.add_module(f"conv{number}{suffix}", nn.Conv3d(*wide, sizes, steps, padding, bias=False))
        owner.add_module(f"bn{number}{suffix}", nn.BatchNorm3d(wide[1]))

    if not factorised:
        add("", channels, (kernel, kernel), stride)
        return
    # As many parameters as the cubic kernel would have (Tran et al., https://arxiv.org/abs/1711.11248, section 3.5).
    middle = kernel**3 * inside * outside // (kernel**2 * inside + kernel * outside)
    add("_s", (inside, middle), (1, kernel), (1, over_space))
    add("_t", (middle, outside), (kernel, 1), (over_time, 1))


def _convolve(owner: nn.Module, number: int, x: Tensor, *, factorised: bool) -> Tensor:
    for suffix in ("_s", "_t") if factorised else ("",):
        if suffix == "_t":
            x = functional.relu(x)
        x = getattr(owner, f"bn{number}{suffix}")(getattr(owner, f"conv{number}{suffix}")(x))
    return x


class _PaddedShortcut(nn.Module):
    """Shortcut A: every stride-th position, and zeros for the new channels. No parameters."""

    def __init__(self, channels: tuple[int, int], *, stride: int) -> None:
        super().__init__()
        self.extra_channels = channels[1] - channels[0]
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = functional.avg_pool3d(x, kernel_size=1, stride=self.stride)
        return functional.pad(x, (0, 0, 0, 0, 0, 0, 0, self.extra_channels))


def _projection(channels: tuple[int, int], *, stride: int) -> nn.Module:
    """Shortcut B: a 1x1x1 convolution and its batch norm."""
    return nn.Sequential(nn.Conv3d(*channels, 1, stride, bias=False), nn.BatchNorm3d(channels[1]))


_SHORTCUTS: Mapping[Shortcut, Callable[..., nn.Module]] = {"A": _PaddedShortcut, "B": _projection}


class _BasicBlock(nn.Module):
    def __init__(self, channels: tuple[int, int], *, stride: int, shortcut: Shortcut, factorised: bool) -> None:
        super().__init__()
        self.factorised = factorised
        _add_convolution(self, 1, channels, 3, (stride, stride), factorised=factorised)
        _add_convolution(self, 2, (channels[1], channels[1]), 3, (1, 1), factorised=factorised)
        changes = stride != 1 or channels[0] != channels[1]
        self.downsample = _SHORTCUTS[shortcut](channels, stride=stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        x = functional.relu(_convolve(self, 1, x, factorised=self.factorised))
        return functional.relu(_convolve(self, 2, x, factorised=self.factorised) + residual)


class Backbone(nn.Module):
    """A residual network over clips (N, 3, T, H, W) that ends in pooled features (N, 8 * width)."""

    def __init__(
        self,
        *,
        factorised: bool = False,
        layers: tuple[int, int, int, int] = (2, 2, 2, 2),
        width: int = 64,
        shortcut: Shortcut = "B",
        max_pool: bool = True,
    ) -> None:
        super().__init__()
        self.factorised = factorised
        self.num_features = 8 * width
        _add_convolution(self, 1, (3, width), 7, (1, 2), factorised=factorised)
        self.max_pool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1) if max_pool else nn.Identity()
        inside = width
        for number, depth in enumerate(layers, start=1):
            outside = width * 2 ** (number - 1)
            blocks: list[nn.Module] = []
            for block in range(depth):
                stride = 2 if number > 1 and block == 0 else 1
                channels = (inside, outside)
                blocks.append(_BasicBlock(channels, stride=stride, shortcut=shortcut, factorised=factorised))
                inside = outside
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) to (N, num_features), averaged over time and space."""
        x = functional.relu(_convolve(self, 1, clips, factorised=self.factorised))
        x = self.max_pool(x)
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return functional.adaptive_avg_pool3d(x, 1).flatten(1)

    def forward(self, clips: Tensor) -> Tensor:
        """The features."""
        return self.features(clips)


class Classifier(nn.Module):
    """A backbone with a fresh linear head, (N, 3, T, H, W) to logits (N, num_classes)."""

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.num_features, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.fc(self.backbone(clips))
        return logits


def r3d18(*, shortcut: Shortcut = "B", max_pool: bool = True) -> Backbone:
    """3D-ResNet-18: 33.2 M parameters, 8.31 GMACs on 16x112x112."""
    return Backbone(shortcut=shortcut, max_pool=max_pool)


def r2plus1d18(*, shortcut: Shortcut = "B", max_pool: bool = True) -> Backbone:
    """R(2+1)D-18: 33.2 M parameters, 8.48 GMACs on 16x112x112."""
    return Backbone(factorised=True, shortcut=shortcut, max_pool=max_pool)


def r3d18_small(*, shortcut: Shortcut = "B", max_pool: bool = True) -> Backbone:
    """3D-ResNet-18 at a quarter of the width, 2.1 M parameters: trains on a CPU."""
    return Backbone(width=16, shortcut=shortcut, max_pool=max_pool)


BACKBONES: Mapping[str, Callable[..., Backbone]] = {
    "r3d18": r3d18,
    "r2plus1d18": r2plus1d18,
    "r3d18_small": r3d18_small,
}
"""By the name that a config uses. Weights are drawn from torch's global generator: seed it first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """What came of loading pretrained weights into a backbone."""

    loaded: tuple[str, ...]
    """The backbone's own names that were filled."""
    left_out: tuple[str, ...]
    """Names in the file that a backbone has no place for: heads, projectors."""


def _own_name(name: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if name.startswith(prefix):
                name, stripped = name.removeprefix(prefix), True
    return name


def load_backbone(backbone: Backbone, state: Mapping[str, Tensor]) -> Loaded:
    """Fill the backbone from a classifier's, a self-supervised network's or Hara's state dict; heads are left out.

    Raises:
        ValueError: no name matches, only some of the backbone is covered, or a shape differs.
    """
    own = backbone.state_dict()
    renamed = {_own_name(name): (name, tensor) for name, tensor in state.items()}
    found = {name: tensor for name, (_, tensor) in renamed.items() if name in own}
    if not found:
        raise ValueError(
            f"none of the {len(state)} pretrained names (such as {next(iter(state), None)!r}) is one of the backbone's "
            f"(such as {next(iter(own))!r}): choose the backbone that the weights were trained with"
        )
    # Older files do not count batches; the count does not enter the output.
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(
            f"pretrained weights cover {len(found)} of the backbone's {len(own)} tensors, {missing[0]!r} is missing: "
            "choose the backbone that they were trained with"
        )
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"pretrained {name!r} has shape {tuple(tensor.shape)}, the backbone needs {tuple(own[name].shape)}: "
                "choose the backbone that it was trained with"
            )
    with torch.no_grad():
        backbone.load_state_dict(found, strict=False)
    left_out = tuple(sorted(original for name, (original, _) in renamed.items() if name not in own))
    return Loaded(loaded=tuple(sorted(found)), left_out=left_out)


def hara_state_dict(classifier: Classifier) -> dict[str, Tensor]:
    """The classifier's state under Hara's flat names (`conv1.weight`, ..., `fc.bias`)."""
    return {name.removeprefix("backbone."): tensor for name, tensor in classifier.state_dict().items()}
