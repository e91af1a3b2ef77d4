"""The request budgets of a whole cluster: one named actor that grants every permit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from pipeline.limits import LocalPermits, Rate


@dataclass(frozen=True, slots=True)
class ClusterPermits:
    """pipeline.limits.Permits asked of the actor; picklable, one for all workers."""

    actor: Any

    def reserve(self, name: str) -> float:
        """See pipeline.limits.Permits. The wait counts from the answer, so a slow answer only waits longer."""
        seconds: float = ray.get(self.actor.reserve.remote(name))
        return seconds

    def throttled(self, name: str, seconds: float) -> None:
        """See pipeline.limits.Permits."""
        ray.get(self.actor.throttled.remote(name, seconds))


def start_permits(rates: Mapping[str, Rate], *, default: Rate) -> ClusterPermits:
    """Start the actor; it lives as long as the job that asked for it."""
    actor = ray.remote(LocalPermits).options(num_cpus=0).remote(rates, default=default)
    return ClusterPermits(actor)
