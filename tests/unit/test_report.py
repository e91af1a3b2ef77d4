import html.parser
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from io import BytesIO

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import figures
from jobs.report import Config, render_report, run, write_report
from pipeline.errors import UserError
from pipeline.records import Comment, VideoRecord
from pipeline.shards import Probe, Sample, publish_shard, read_rows, write_shard
from pipeline.splits import SplitSettings, make_splits, write_splits
from pipeline.stats import ANNOTATIONS
from pipeline.store import FolderStore
from pipeline.units import Ledger, Unit
from pipeline.usable import COLUMNS

PROBE = Probe(
    width=160, height=128, fps=25.0, num_frames=24, source_codec="h264", source_width=640, source_height=512,
    source_fps=25.0, source_frames=24, source_duration_seconds=1.0, rotation=0, decode_errors=0, source_sha256="0" * 64,
)  # fmt: skip
ACTIONS = ("juggle", "ride horse", "play guitar", "dive", "fence", "archery", "knit", "surf", "kayak", "dance")
COUNTRIES = ("US", "GB", "DE", "NA", "JP", "BR", "FR", "IN", "IT", "ES", "CA", "AU", "NL", "SE", "MX", "ZA", "KE")
EVIL = '<script>alert("x")</script> & $5$'


def _encode(path, *, hue):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 128, "yuv420p", 400_000
        across = np.linspace(0, 255, 160)[None, :, None]
        for number in range(PROBE.num_frames):
            picture = np.broadcast_to(across, (128, 160, 3)).copy()
            picture[..., hue % 3] = 40
            picture[30:90, 6 * number : 6 * number + 20] = 255
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _record(number, rng):
    concepts = {ACTIONS[int(len(ACTIONS) * rng.random() ** 2.5)] for _ in range(1 + number % 4)}
    return VideoRecord(
        video_id=f"{10_000_000 + number * 977}",
        title=EVIL if number == 0 else f"{sorted(concepts)[0].title()} at the lake, part {number}",
        description="One of many. " * (1 + number % 7) if number % 5 else "",
        tags=tuple(f"tag{number % k}" for k in range(1, 1 + number % 9)),
        comments=tuple(Comment(author_hash="h", text="Lovely!", posted=1) for _ in range(number % 3)),
        posted=int(rng.integers(1_207_000_000, 1_600_000_000)),
        license=(None, 0, 0, 0, 1, 2, 4, 5)[number % 8],
        owner=f"{number % 60}@N00",
        concepts=tuple(sorted(concepts)),
        sentences=("a man be juggle three ball in a park",) if number % 40 == 0 else (),
    )


def _build(store, folder, *, count):
    """Two committed shards made by the real writers; one record in nine was dropped."""
    rng = np.random.default_rng(0)
    clips = [_encode(folder / f"{hue}.mp4", hue=hue) for hue in range(3)]
    ledger = Ledger(store, "build", {"profile": "train", "short_side": 128, "videos_per_shard": count})
    ledger.open()
    for shard in range(2):
        samples = []
        for number in range(shard * count, (shard + 1) * count):
            record = _record(number, rng)
            if number % 9 == 8:
                outcome = ("gone", "timeout", "decode_failed")[number // 9 % 3]
                samples.append(Sample(record=record, outcome=outcome, detail=f"example of {outcome}"))
            else:
                seconds = float(np.round(rng.lognormal(3.4, 0.9), 2))
                probe = replace(PROBE, source_duration_seconds=seconds)
                samples.append(Sample(record=record, path=clips[number % 3], probe=probe))
        unit = Unit(f"{shard:06d}")
        publish_shard(ledger, unit=unit, files=write_shard(samples, folder=folder, name=unit.name))


def _annotate(store):
    ids = read_rows(store, columns=["video_id"])["video_id"].to_pylist()
    rows = [
        {
            "video_id": video_id,
            "country_iso": COUNTRIES[number % 7 * (number % 3)] if number % 3 else None,
            "entities": ["Sports", "Travel", "Arts & Entertainment"][: number % 4],
        }
        for number, video_id in enumerate(ids)
    ]
    buffer = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATIONS), buffer)
    store.write("annotations/annotations.parquet", buffer.getvalue())


def _train(store):
    rng = np.random.default_rng(1)
    for name, verb, start, end in (
        ("ssl-25k", "pretrain-ssl", 9.0, 4.0),
        ("finetune-ssl", "finetune", 4.6, 1.2),
        ("finetune-scratch", "finetune", 4.6, 2.1),
    ):
        steps = np.arange(10, 3000, 10)
        losses = end + (start - end) * np.exp(-steps / 700) + rng.normal(0, 0.12, len(steps))
        rows = [{"step": int(s), "loss": float(x), "lr": 0.03} for s, x in zip(steps, losses, strict=True)]
        lines = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 3000, "video_top1": 0.5}])
        store.write(f"runs/{name}/metrics.jsonl", (lines + '{"step": 30').encode())
        store.write(f"runs/{name}/config.json", json.dumps({"verb": verb}).encode())
    for name, init, top1 in (("finetune-ssl", "ssl+multilabel", 0.7124), ("finetune-scratch", "scratch", 0.4454)):
        result = {"verb": "finetune", "init": init, "video_top1": top1, "clip_top1": top1 - 0.05, "seed": 0}
        store.write(f"runs/{name}/result.json", json.dumps(result).encode())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    store = FolderStore(folder / "root")
    _build(store, folder, count=120)
    _annotate(store)
    settings = SplitSettings(sizes={"small": 20, "large": 60}, min_videos=3, val_fraction=0.1)
    write_splits(store, make_splits(read_rows(store, columns=COLUMNS).to_batches(), settings=settings))
    _train(store)
    return store


@pytest.fixture(scope="module")
def page(root):
    return render_report(root, title="Demo")


class _Page(html.parser.HTMLParser):
    """Counts elements, and collects what would be loaded from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.sources = Counter(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.sources += [value for name, value in attrs if name in ("src", "href", "xlink:href", "srcset") and value]


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script(page):
    seen = _Page(page)
    assert seen.elements["script"] == seen.elements["link"] == 0
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in seen.sources)
    assert not re.findall(r"url\((?!#)", page)
    assert seen.elements["img"] == 8 * 6
    assert seen.elements["figure"] == 7 + 2


def test_numbers_are_those_of_the_shards(root, page):
    outcomes = Counter(read_rows(root, columns=["outcome"])["outcome"].to_pylist())
    assert f"<b>{outcomes['ok']}</b><span>videos of 240 asked for</span>" in page
    for outcome, count in outcomes.items():
        assert re.search(rf'<code>{outcome}</code></td><td class="n">{count}</td>', page)
    assert "71.2 %" in page
    assert "44.5 %" in page
    assert "ssl+multilabel" in page


def test_a_report_is_the_same_each_time_and_goes_where_it_is_told(root, page, tmp_path):
    assert write_report(root, tmp_path / "sub" / "page.html", title="Demo") == str(tmp_path / "sub" / "page.html")
    assert (tmp_path / "sub" / "page.html").read_text() == page
    assert write_report(root, title="Demo") == f"{root.url}/report.html"
    assert root.read("report.html").decode() == page


def test_missing_parts_name_the_verb_that_makes_them(tmp_path):
    page = render_report(FolderStore(tmp_path))
    for verb in ("build", "crawl", "split", "pretrain", "finetune"):
        assert f"<code>noisyactions {verb}</code>" in page
    assert _Page(page).elements["figure"] == 0


def test_a_title_with_markup_reaches_the_page_as_text(tmp_path):
    store = FolderStore(tmp_path / "root")
    _build(store, tmp_path, count=1)
    page = render_report(store, num_samples=5)
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt; &amp; $5$" in page
    assert "<script" not in page


def test_a_stored_video_that_is_damaged_is_told_and_the_page_is_written(tmp_path):
    store = FolderStore(tmp_path / "root")
    _build(store, tmp_path, count=2)
    row = read_rows(store).to_pylist()[0]
    tar = bytearray(store.read(row["shard"]))
    tar[row["mp4_offset"] : row["mp4_offset"] + row["mp4_size"]] = bytes(row["mp4_size"])
    store.write(row["shard"], bytes(tar))
    page = render_report(store)
    assert page.count("cannot be decoded") == 1
    assert _Page(page).elements["img"] > 0


def test_the_verb_writes_the_page_and_says_where(root, tmp_path, capsys):
    assert run(Config(root=root.url, out=tmp_path / "page.html", samples=0)) == 0
    assert f"the report is {tmp_path}/page.html" in capsys.readouterr().out.replace("\n", "")
    assert "data:image/jpeg" not in (tmp_path / "page.html").read_text()
    with pytest.raises(UserError, match="samples -1: use 0 for none"):
        Config(root=root.url, samples=-1)


def test_a_loss_that_is_not_finite_is_told(tmp_path):
    store = FolderStore(tmp_path)
    rows = [{"step": step, "loss": float("nan") if step > 50 else 2.0 + 1 / step} for step in range(1, 60)]
    store.write("runs/diverged/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    store.write("runs/started/metrics.jsonl", b'{"step": 1, "loss": 3.0}\n')
    page = render_report(store)
    assert "Not finite at some steps, which are left out: diverged." in page
    assert _Page(page).elements["figure"] == 1


def test_charts_follow_the_theme_and_take_any_text():
    names = [("\N{CJK UNIFIED IDEOGRAPH-4E2D}<b>&", 5), ("$x^2$", 3), ("long " * 20, 1)]
    for svg in (figures.bars(names), figures.class_distribution(names)):
        assert svg.startswith("<svg")
        assert "currentColor" in svg
        assert "var(--line0)" in svg
        assert "<b>" not in svg
        assert not re.search(r"#0[0-9a-f]0[0-9a-f]0[0-9a-f]\b", svg)


@pytest.mark.parametrize("seconds", [[1.0], [0.04, 0.05], [5.0] * 50 + [4000.0], list(range(1, 500))])
def test_a_duration_histogram_loses_no_video(seconds):
    svg, beyond = figures.duration_histogram(seconds)
    assert svg.startswith("<svg")
    assert beyond <= len(seconds) / 50 + 1


def test_a_film_strip_spreads_over_the_video(tmp_path):
    video = _encode(tmp_path / "a.mp4", hue=1).read_bytes()
    strip = figures.film_strip(video, num_frames=24)
    assert len(strip) == len(set(strip)) == 6


@pytest.mark.browser
def test_chromium_draws_the_page(root, tmp_path):
    browser = shutil.which("chromium")
    assert browser, "needs chromium on the PATH"
    write_report(root, tmp_path / "page.html")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--window-size=1200,3000",
    ]
    subprocess.run([browser, *flags, f"--screenshot={tmp_path}/p.png", f"file://{tmp_path}/page.html"], check=True)
    assert (tmp_path / "p.png").stat().st_size > 50_000
