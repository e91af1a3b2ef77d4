"""`noisyactions plan` against what `crawl` then used, on worlds of three shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.sandbox.actions import ACTIONS
from pipeline.sandbox.search import SearchQuirks
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World, WorldConfig

TREE = Path(__file__).parents[2]
WORLDS = {
    "many labels, few comments": (
        WorldConfig(num_videos=1200, stray_labels=3.0, comment_rate=0.12, dates="growing"),
        SearchQuirks(),
        ACTIONS,
    ),
    "one query of 7,000, small totals": (
        WorldConfig(num_videos=7000, shared_tag="everything", comment_rate=0.3, trouble_rate=0.02, dates="burst"),
        SearchQuirks(under_reported=0.05, unstable="always"),
        ("everything", "swing", "hula hoop"),
    ),
    "one label, much trouble": (
        WorldConfig(num_videos=900, mean_labels=1.0, trouble_rate=0.4, comment_rate=0.8),
        SearchQuirks(),
        (*ACTIONS[:6], "nothing of the kind"),
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", WORLDS)
def test_the_plan_is_within_a_tenth_of_what_the_crawl_uses(name: str, tmp_path: Path) -> None:
    config, quirks, actions = WORLDS[name]
    with serve(World(config, cache=tmp_path / "world"), quirks=quirks) as server:
        _run("vocabulary", tmp_path, "--names", *actions, url=server.rest_url)
        fast = ("--flickr.calls-per-hour", "10000000")
        plans = {p["plan"]: p for p in json.loads(_run("plan", tmp_path, "--json", *fast, url=server.rest_url))}
        probes = server.counters.count("flickr.photos.getInfo")
        assert probes == 100
        _run("crawl", tmp_path, *fast, url=server.rest_url)
        used = server.counters.count("api") - probes - server.counters.count("flickr.test.echo")
        records = json.loads((tmp_path / "records" / "records.json").read_text())
        assert server.counters.errors == []
    assert plans["B"]["calls"] == pytest.approx(used, rel=0.1)
    assert plans["B"]["videos"] == pytest.approx(records["videos"], rel=0.1)


def _run(verb: str, root: Path, *more: str, url: str) -> str:
    sandbox = {"FLICKR_REST_URL": url, "FLICKR_CONTACT": "a@b.c", "FLICKR_API_KEY": "sandbox"}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.cli", verb, str(root), *more],
        cwd=TREE, env={**os.environ, **sandbox}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
