"""A root -> one self-contained HTML page: the dataset, its statistics, samples, splits, training and results.

Reads whatever the root holds by now; writes report.html. Costs seconds per 100,000 videos, and asks nothing of the
network.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import av
import jinja2
import pyarrow.parquet as pq
import tyro
from markupsafe import Markup

from jobs import figures
from jobs.account import crawl_account
from jobs.progress import say
from pipeline import stats
from pipeline.errors import UserError
from pipeline.places import country_name
from pipeline.scan import shard_files
from pipeline.shards import download
from pipeline.store import Store, open_store

logger = logging.getLogger(__name__)

_SAMPLE_COLUMNS = ("video_id", "title", "tags", "concepts", "sentences", "mp4_offset", "mp4_size", "num_frames")
_LICENSES = {
    0: "All rights reserved", 1: "CC BY-NC-SA 2.0", 2: "CC BY-NC 2.0", 3: "CC BY-NC-ND 2.0", 4: "CC BY 2.0",
    5: "CC BY-SA 2.0", 6: "CC BY-ND 2.0", 7: "No known copyright restrictions", 8: "United States government work",
    9: "CC0 1.0", 10: "Public Domain Mark 1.0", 11: "CC BY 4.0", 12: "CC BY-SA 4.0", 13: "CC BY-ND 4.0",
    14: "CC BY-NC 4.0", 15: "CC BY-NC-SA 4.0", 16: "CC BY-NC-ND 4.0",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where the page goes and what is on it."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix to tell about."""
    out: Path | None = None
    """Local file to write; report.html in the root if not given."""
    title: str = "NoisyActions"
    samples: int = 8
    """Videos shown as film strips."""

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise UserError(f"samples {self.samples}: use 0 for none")


def run(config: Config) -> int:
    """Write the page and tell where it is."""
    where = write_report(open_store(config.root), config.out, title=config.title, num_samples=config.samples)
    say(f"the report is {where}")
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A figure of the page."""

    title: str
    svg: Markup
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """A sample video of the page."""

    video_id: str
    title: str
    tags: tuple[str, ...]
    labels: tuple[str, ...]
    sentences: tuple[str, ...]
    frames: tuple[str, ...]
    """`data:` URLs of JPEG; empty if the stored video cannot be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a run folder says of itself."""

    name: str
    verb: str
    losses: tuple[tuple[int, float], ...]
    """(step, loss), by step."""
    result: Mapping[str, Any]


def write_report(
    store: Store, out_path: Path | None = None, *, title: str = "NoisyActions", num_samples: int = 8
) -> str:
    """Write the page to `out_path`, or as `report.html` into the root; returns where it is.

    Parts whose data is not there yet are left out, with a line that names the verb that makes it.
    """
    page = render_report(store, title=title, num_samples=num_samples).encode()
    if out_path is None:
        store.write("report.html", page)
        return f"{store.url}/report.html"
    out_path.parent.mkdir(parents=True, exist_ok=True)
    out_path.write_bytes(page)
    return str(out_path)


def render_report(store: Store, *, title: str = "NoisyActions", num_samples: int = 8) -> str:
    """The page as text: no scripts, and nothing is loaded from elsewhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "cell": _cell}
    runs = _read_runs(store)
    return environment.get_template("report.html.j2").render(
        title=title,
        root=store.url,
        settings={job: _flat(_read_json(store, f"{job}/settings.json")) for job in ("crawl", "build")},
        crawl=crawl_account(store),
        card=_read_json(store, "splits/card.json"),
        curves=_curves(runs),
        results=[run for run in runs if run.result],
        result_keys=_result_keys(runs),
        numeric={key for run in runs for key, value in run.result.items() if isinstance(value, (int, float))},
        **_dataset(store, num_samples),
    )


def _dataset(store: Store, num_samples: int) -> dict[str, Any]:
    """What the page says of the shards and their annotations."""
    with (
        shard_files(store) as tars,
        _annotations(store) as annotations,
        stats.open_statistics(list(tars), annotations=annotations) as statistics,
    ):
        size, frames = statistics.stored()
        return {
            "asked": statistics.num_asked(),
            "videos": statistics.num_videos(),
            "num_classes": len(statistics.class_sizes()),
            "hours": sum(statistics.durations()) / 3600,
            "stored_bytes": size,
            "stored_frames": frames,
            "outcomes": statistics.outcomes(),
            "table2": statistics.table2(),
            "annotated": bool(annotations),
            "charts": _charts(statistics) if statistics.num_videos() else [],
            "strips": _strips(store, statistics, statistics.sample_ids(num_samples), tars),
        }


def _number(value: float | None, digits: int = 1) -> str:
    """A count with thousands separators, another number with `digits` decimals, a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _percent(part: float, whole: float = 1) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "\N{EN DASH}"


_SHARES = ("top1", "on_test", "top5", "map", "accuracy", "acc", "f1", "rate", "recall", "precision")


def _cell(value: Any, key: str) -> str:
    """A value of a result: scores in per cent, other numbers in short, lists and dicts as JSON."""
    if value is None or value == "":
        return "\N{EN DASH}"
    if isinstance(value, float) and 0 <= value <= 1 and key.lower().endswith(_SHARES):
        return _percent(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)


def _flat(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """{"profile": {"gop": 4}} -> {"profile.gop": 4}: a line for each setting."""
    if values is None:
        return None
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = value if isinstance(value, dict) else {"": value}
        flat |= {f"{name}.{inner}".rstrip("."): one for inner, one in nested.items()}
    return flat


def _result_keys(runs: Sequence[Run]) -> list[str]:
    """The columns of the results: what a run began with, its scores, then what it took."""
    keys = list(dict.fromkeys(key for run in runs for key in run.result))
    scores = [key for key in keys if key.lower().endswith(_SHARES)]
    return [key for key in ("init", *scores, "seed", "epochs", "steps", "train_videos", "num_videos") if key in keys]


def _read_json(store: Store, key: str) -> Any:
    try:
        return json.loads(store.read(key))
    except FileNotFoundError:
        return None


@contextmanager
def _annotations(store: Store) -> Iterator[list[str]]:
    """The path of the annotations, if there are any."""
    with TemporaryDirectory(prefix="noisyactions-") as folder:
        path = Path(folder) / "annotations.parquet"
        try:
            download(store, "annotations/annotations.parquet", path)
        except FileNotFoundError:
            yield []
        else:
            yield [str(path)]


def _chart(title: str, svg: str, note: str = "") -> Chart:
    return Chart(title=title, svg=Markup(svg), note=note)


def _charts(statistics: stats.Statistics) -> list[Chart]:
    """The charts for which there is data, in the page's order."""
    charts = []
    if classes := statistics.class_sizes():
        note = (
            f"{len(classes):,} classes; {sum(count > 10 for _, count in classes):,} of them with more than 10 videos."
        )
        charts.append(_chart("Videos per class", figures.class_distribution(classes), note))
        charts.append(_chart("Labels per video", figures.columns(statistics.labels_per_video(), label="labels")))
    if seconds := statistics.durations():
        svg, beyond = figures.duration_histogram(seconds)
        charts.append(_chart("Duration", svg, f"{beyond:,} videos are longer than shown." if beyond else ""))
    if years := statistics.years():
        charts.append(_chart("Uploads per year", figures.columns(years, label="year of upload")))
    if countries := statistics.country_sizes():
        top = [(country_name(iso), count) for iso, count in countries[:15]]
        located = sum(count for _, count in countries)
        note = f"{located:,} of {statistics.num_videos():,} videos name a country; {len(countries):,} countries in all."
        charts.append(_chart("Countries", figures.bars(top), note))
    if entities := statistics.entity_sizes():
        charts.append(_chart("Entities in the texts", figures.bars(entities[:24]), "A video may have several."))
    licenses = statistics.licenses()
    if any(number is not None for number, _ in licenses):
        named = [(_license(number), count) for number, count in licenses]
        charts.append(_chart("Licences", figures.bars(named)))
    return charts


def _license(number: int | None) -> str:
    return "not known" if number is None else _LICENSES.get(number, f"Flickr's number {number}")


def _strips(
    store: Store, statistics: stats.Statistics, video_ids: Sequence[str], tars: Mapping[str, str]
) -> list[Strip]:
    files = statistics.files_of(video_ids)
    strips = []
    for video_id in video_ids:
        only_it = [("video_id", "==", video_id)]
        rows = pq.read_table(files[video_id], columns=list(_SAMPLE_COLUMNS), filters=only_it, partitioning=None)
        for row in rows.to_pylist():
            strips.append(_strip(store, row | {"shard": tars[files[video_id]]}))
    return strips


def _strip(store: Store, row: Mapping[str, Any]) -> Strip:
    video = store.read_range(row["shard"], start=row["mp4_offset"], length=row["mp4_size"])
    try:
        frames = figures.film_strip(video, num_frames=row["num_frames"])
    except av.error.FFmpegError as error:
        logger.warning("%s in %s cannot be decoded (%s): run fsck", row["video_id"], row["shard"], error)
        frames = []
    return Strip(
        video_id=row["video_id"],
        title=row["title"] or "",
        tags=tuple(row["tags"] or ()),
        labels=tuple(row["concepts"] or ()),
        sentences=tuple(row["sentences"] or ()),
        frames=tuple(frames),
    )


def _read_runs(store: Store) -> list[Run]:
    """Every run with metrics or a result, by name."""
    keys = [key for key in store.list("runs/") if key.endswith(("/metrics.jsonl", "/result.json"))]
    runs = []
    for folder in sorted({key.rpartition("/")[0] for key in keys}):
        result = _read_json(store, f"{folder}/result.json") or {}
        config = _read_json(store, f"{folder}/config.json") or {}
        name = folder.removeprefix("runs/")
        losses = _losses(store.read(f"{folder}/metrics.jsonl")) if f"{folder}/metrics.jsonl" in keys else ()
        verb = str(result.get("verb") or config.get("verb") or name)
        if objective := result.get("objective"):
            verb = f"{verb}, {objective}".replace("_", " ")
        runs.append(Run(name=name, verb=verb, losses=losses, result=result))
    return runs


def _losses(metrics: bytes) -> tuple[tuple[int, float], ...]:
    """(step, loss) of rows that have both; a step repeated after a resume counts once, its last row."""
    whole = metrics[: metrics.rfind(b"\n") + 1]  # a run that is being written may end in half a line
    rows = map(json.loads, filter(None, whole.splitlines()))
    return tuple(
        sorted({row["step"]: row["loss"] for row in rows if "step" in row and row.get("loss") is not None}.items())
    )


def _curves(runs: Sequence[Run]) -> list[Chart]:
    """A chart per verb and objective: losses of different objectives have no common scale."""
    charts = []
    for verb in dict.fromkeys(run.verb for run in runs):
        of_verb = [run for run in runs if run.verb == verb]
        finite = {run.name: [point for point in run.losses if math.isfinite(point[1])] for run in of_verb}
        broken = [run.name for run in of_verb if len(finite[run.name]) < len(run.losses)]
        curves = {name: points for name, points in finite.items() if len(points) > 1}
        if curves:
            note = f"Not finite at some steps, which are left out: {', '.join(broken)}." if broken else ""
            charts.append(_chart(verb, figures.loss_curves(curves), note))
    return charts
