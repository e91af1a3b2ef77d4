"""Where training runs: device, precision, ranks, and where reports go. The loop is the same for all of them.

`SingleProcess` is the reference mode. `ProcessGroupRuntime` works over an initialised torch.distributed group, whoever
started it (torchrun, Ray Train, a test).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

logger = logging.getLogger(__name__)

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def choose_device(name: str = "auto") -> tuple[torch.device, str]:
    """The device and why it was chosen."""
    if name != "auto":
        return torch.device(name), "asked for"
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), "CUDA is available"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Apple's GPU is available, CUDA is not"
    return torch.device("cpu"), "no GPU is available"


def choose_precision(device: torch.device, precision: Precision | None = None) -> tuple[Precision, str]:
    """The precision and why it was chosen.

    Raises:
        ValueError: the word is unknown, or 16-mixed is asked for without CUDA.
    """
    if precision is not None and precision not in get_args(Precision):
        raise ValueError(f"precision {precision!r} is unknown: choose one of {', '.join(get_args(Precision))}")
    if precision == "16-mixed" and device.type != "cuda":
        raise ValueError(f"precision '16-mixed' needs CUDA, the device is {device.type}: choose bf16-mixed or 32-true")
    if precision is not None:
        return precision, "asked for"
    if device.type != "cuda":
        return "32-true", f"the safe choice on {device.type}; bf16-mixed is faster on some"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed", "the GPU computes in bfloat16"
    return "16-mixed", "the GPU does not compute in bfloat16"


@dataclass(kw_only=True, slots=True)
class Compute:
    """Device and precision, with the reasons for both, and what follows from them for a step."""

    device: torch.device
    precision: Precision
    device_reason: str
    precision_reason: str
    channels_last: bool = False
    """Lay activations out as channels_last_3d; faster convolutions on recent GPUs in mixed precision."""
    compile: bool = False
    """Pass the module through torch.compile."""
    scaler: torch.amp.GradScaler | None = field(init=False)
    """For 16-mixed only."""

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(self.device.type) if self.precision == "16-mixed" else None

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context that a forward pass runs in."""
        if self.precision == "32-true":
            return contextlib.nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients, scaled where float16 needs it."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the gradients; in 16-mixed a step whose gradients overflowed is left out by the scaler."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def place(self, module: nn.Module) -> nn.Module:
        """The module on the device, in the layout asked for."""
        module.to(self.device)
        if self.channels_last:
            module.to(memory_format=torch.channels_last_3d)
        return module

    def compiled(self, module: nn.Module) -> nn.Module:
        """The module through torch.compile where asked for; the parameters are shared."""
        return torch.compile(module) if self.compile else module  # type: ignore[return-value]

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state."""
        return {} if self.scaler is None else {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint; one of another precision has no scaler and leaves this one fresh."""
        if self.scaler is not None and "scaler" in state:
            self.scaler.load_state_dict(state["scaler"])


def build_compute(
    device: str = "auto", *, precision: Precision | None = None, channels_last: bool = False, compiled: bool = False
) -> Compute:
    """Choose what is not asked for, and say why."""
    chosen, why = choose_device(device)
    how, why_how = choose_precision(chosen, precision)
    logger.info("device %s (%s), precision %s (%s)", chosen, why, how, why_how)
    return Compute(
        device=chosen,
        precision=how,
        device_reason=why,
        precision_reason=why_how,
        channels_last=channels_last,
        compile=compiled,
    )


@dataclass(frozen=True, slots=True)
class MetricsLog:
    """JSON lines on disk, a row per report, in the order of steps."""

    path: Path

    def append(self, metrics: Mapping[str, Any], *, step: int) -> None:
        """One row, flushed, so that a kill loses at most the row being written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def rewind(self, step: int) -> None:
        """Forget rows after `step` and a half-written last row: a resumed run will report them again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
        part = self.path.with_name(self.path.name + ".part")
        part.write_text("".join(kept))
        os.replace(part, self.path)


class Runtime(Protocol):
    """What the training loop and evaluation ask of the place they run in."""

    @property
    def compute(self) -> Compute:
        """Device and precision."""

    @property
    def rank(self) -> int:
        """0 for the one that reports and saves."""

    @property
    def world_size(self) -> int:
        """Number of ranks."""

    def wrap(self, module: nn.Module) -> nn.Module:
        """What to call forward on; shares the module's parameters, moves it to the device."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Every rank's tensor of the same shape, concatenated along the first dimension in rank order."""

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks; the argument is left as it is."""

    def barrier(self) -> None:
        """Wait for the other ranks."""

    def report(self, metrics: Mapping[str, Any], step: int) -> None:
        """Publish a row of metrics; on rank 0 only, whoever calls."""

    def rewind(self, step: int) -> None:
        """Forget what was reported after `step`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleProcess:
    """One process: the reference mode."""

    compute: Compute = field(default_factory=build_compute)
    log: MetricsLog | None = None
    rank: int = 0
    world_size: int = 1

    def wrap(self, module: nn.Module) -> nn.Module:
        """See Runtime."""
        return self.compute.compiled(self.compute.place(module))

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See Runtime."""
        return tensor

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """See Runtime."""
        return tensor

    def barrier(self) -> None:
        """See Runtime."""

    def report(self, metrics: Mapping[str, Any], step: int) -> None:
        """See Runtime."""
        if self.log is not None:
            self.log.append(metrics, step=step)

    def rewind(self, step: int) -> None:
        """See Runtime."""
        if self.log is not None:
            self.log.rewind(step)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessGroupRuntime:
    """One rank of an initialised torch.distributed group: gloo on CPUs, NCCL on GPUs."""

    compute: Compute = field(default_factory=build_compute)
    log: MetricsLog | None = None
    sync_batch_norm: bool = False
    """Normalise by the global batch's statistics (GPU only); worth it below about 8 samples a rank."""

    def __post_init__(self) -> None:
        if not dist.is_initialized():
            raise ValueError("no process group: call torch.distributed.init_process_group first, or use SingleProcess")
        if self.sync_batch_norm and self.compute.device.type != "cuda":
            raise ValueError(f"sync_batch_norm needs CUDA, the device is {self.compute.device.type}: leave it off")

    @property
    def rank(self) -> int:
        """See Runtime."""
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        """See Runtime."""
        return dist.get_world_size()

    def wrap(self, module: nn.Module) -> nn.Module:
        """See Runtime."""
        module = self.compute.place(module)
        if self.sync_batch_norm:
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        ids = [self.compute.device.index or 0] if self.compute.device.type == "cuda" else None
        return self.compute.compiled(DistributedDataParallel(module, device_ids=ids))

    def all_gather(self, tensor: Tensor) -> Tensor:
        """See Runtime."""
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """See Runtime."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def barrier(self) -> None:
        """See Runtime."""
        dist.barrier()

    def report(self, metrics: Mapping[str, Any], step: int) -> None:
        """See Runtime."""
        if self.log is not None and self.rank == 0:
            self.log.append(metrics, step=step)

    def rewind(self, step: int) -> None:
        """See Runtime."""
        if self.log is not None and self.rank == 0:
            self.log.rewind(step)
