"""Where work runs: in this process, or on Ray. The only module of `jobs` that imports `cluster`, and only then."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.progress import Bar, say, show_table
from pipeline.limits import LocalPermits, Permits, Rate, state_folder
from pipeline.units import Finished, MakeWorker, SetAside, Unit, work_here

if TYPE_CHECKING:  # torch is imported by the verbs that train, not by a crawl
    from jobs.training import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """How many processes work, and on which machines."""

    workers: int = 0
    """Ray actors; 0 works in this process and never imports Ray."""
    ray_address: str | None = None
    """A cluster's head (`auto`, `host:6379`, `ray://host:10001`); without one, Ray starts on this machine."""
    unit_hours: float = 4.0
    """A unit that takes longer has its actor killed; times the workers, for they share each host's request budget."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.unit_hours <= 0:
            raise ValueError(
                f"workers must be 0 or more and unit_hours positive, got {self.workers}, {self.unit_hours}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Request budgets by name (of each API key, media hosts) and for names that are not listed."""

    named: Mapping[str, Rate] = field(default_factory=dict)
    default: Rate = field(default_factory=lambda: Rate(per_second=1.0))


@dataclass(slots=True)
class Tally:
    """How a job went."""

    counts: Counter[str] = field(default_factory=Counter)
    set_aside: list[SetAside] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 if every unit is done, 3 if some were set aside."""
        return 3 if self.set_aside else 0

    def show_set_aside(self) -> None:
        """A table of the units that failed too often, if any."""
        if self.set_aside:
            rows = [(s.unit, s.attempts, s.error) for s in self.set_aside]
            show_table("set aside: run the same command again to retry", ("unit", "tries", "error"), rows)


@contextlib.contextmanager
def session(where: Where) -> Iterator[None]:
    """Keep one Ray session over several jobs; nothing at all with 0 workers."""
    if where.workers == 0:
        yield
        return
    if where.ray_address is None:
        from cluster.environment import stay_on_loopback

        stay_on_loopback()
    from cluster.session import connected

    with connected(workers=where.workers, address=where.ray_address):
        yield


def run_units(
    units: Sequence[Unit], make_worker: MakeWorker, *, where: Where, rates: Rates | None = None
) -> Iterator[Finished | SetAside]:
    """Run units where the user wants them; the same units give the same outputs anywhere."""
    rates = rates or Rates()
    if where.workers == 0:
        yield from work_here(units, make_worker, permits=request_permits(where, rates))
        return
    if not units:
        return
    with session(where):  # comes first: it decides what Ray is imported with
        from cluster.pool import PoolSettings
        from cluster.pool import run_units as run_on_actors

        settings = PoolSettings(workers=where.workers, unit_seconds=3600 * where.unit_hours * where.workers)
        yield from run_on_actors(units, make_worker, permits=request_permits(where, rates), settings=settings)


def request_permits(where: Where, rates: Rates) -> Permits:
    """The budgets of requests: this machine's, or within a `session` the cluster's."""
    if where.workers == 0:
        return LocalPermits(rates.named, default=rates.default, folder=state_folder())
    from cluster.limits import start_permits

    return start_permits(rates.named, default=rates.default)


def work_through(
    left: Sequence[Unit],
    make_worker: MakeWorker,
    *,
    done: int,
    label: str,
    where: Where,
    rates: Rates | None = None,
    note: Callable[[Mapping[str, int]], str] | None = None,
) -> Tally:
    """Run the units that are left, with progress, and tell how it went.

    `note` turns a finished unit's counts into the words beside the rate; else they are the most frequent outcomes.
    """
    tally = Tally()
    total = len(left) + done
    with Bar(label, total=total, noun="units", done=done) as bar:
        for result in run_units(left, make_worker, where=where, rates=rates):
            words = ""
            if isinstance(result, SetAside):
                tally.set_aside.append(result)
            else:
                tally.counts.update(result.counts)
                total += len(result.added)
                bar.expect(total)
                words = note(result.counts) if note else ""
            bar.advance(note=words or " ".join(f"{k} {n:,}" for k, n in tally.counts.most_common(3)))
    tally.show_set_aside()
    return tally


def train(run: Run, *, where: Where, label: str) -> dict[str, Any]:
    """Train in this process, or with one rank per worker under Ray Train; returns the run's result.json."""
    from jobs.training import single_process, train_run

    if where.workers == 0:
        with training_bar(label) as progress:
            return train_run(run, make_runtime=single_process(run.recipe), progress=progress)
    from models.runtime import build_compute

    recipe = run.recipe
    with session(where), training_bar(label) as progress:
        from cluster.train import Ranks, train_on_ranks

        say(f"{label}: training on {where.workers} ranks")
        ranks = Ranks(
            workers=where.workers,
            device=recipe.device,
            make_compute=partial(
                build_compute,
                precision=recipe.precision,
                channels_last=recipe.channels_last,
                compiled=recipe.compile,
            ),
            # Below 8 clips a rank, its own statistics are too rough.
            sync_batch_norm=recipe.batch_size < 8 * where.workers,
        )
        return train_on_ranks(partial(train_run, _anywhere(run)), ranks=ranks, progress=progress)


def _anywhere(run: Run) -> Run:
    """The run with absolute roots: Ray's workers have working directories of their own."""
    init_root = None if run.init_root is None else absolute(run.init_root)
    return replace(run, root=absolute(run.root), init_root=init_root)


def absolute(root: str) -> str:
    """A root as a process with another working directory finds it."""
    return root if "://" in root else str(Path(root).absolute())


@contextlib.contextmanager
def training_bar(label: str) -> Iterator[Callable[[int, int, Mapping[str, Any]], None]]:
    """A progress hook for training: steps, clips a second, loss."""
    with contextlib.ExitStack() as stack:
        bars: list[Bar] = []

        def progress(step: int, total: int, row: Mapping[str, Any]) -> None:
            if not bars:
                bars.append(stack.enter_context(Bar(label, total=total, noun="steps")))
            bars[0].reach(step, note=f"loss {row['loss']:.3f}")

        yield progress


def run_trials(
    function: Callable[[Any], Any],
    trials: Mapping[str, Any],
    *,
    where: Where,
    resources: Mapping[str, float],
    told: Callable[[str], None],
) -> dict[str, Any]:
    """The function on each trial's value, `where.workers` at once as Ray Tune trials or here one after another.

    Returns what it returned by the trial's name, or a string with the reason where a trial's process died for good.
    """
    if where.workers == 0:
        found = {}
        for name, value in trials.items():
            found[name] = function(value)
            told(name)
        return found
    with session(where):
        from cluster.sweep import run_trials as run_with_tune

        return run_with_tune(function, trials, concurrent=where.workers, resources=resources, told=told)
