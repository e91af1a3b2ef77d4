"""What tests of the whole story share: a small rendered world behind a server, a downstream set, and the command."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.sandbox.downstream import DownstreamConfig, write_ucf101
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.world import World, WorldConfig

TREE = Path(__file__).parents[2]
ACTIONS = ("juggling balls", "push ups", "swing", "hula hoop")
TINY = (
    "--recipe.epochs", "1", "--recipe.batch-size", "4", "--recipe.crop-pixels", "32", "--recipe.short-side", "40",
    "--recipe.clip-frames", "8",
)  # fmt: skip
WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from jobs.cli import main; main(sys.argv[1:])"


@pytest.fixture(scope="session")
def story_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    """Forty short videos, one in five in trouble."""
    config = WorldConfig(num_videos=40, actions=ACTIONS, min_seconds=1.2, max_seconds=2.0, trouble_rate=0.2)
    with serve(World(config, cache=tmp_path_factory.mktemp("story"))) as server:
        yield server
        assert server.counters.errors == []


@pytest.fixture(scope="session")
def story_ucf101(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training and two test videos of each of three actions, in UCF101's layout."""
    config = DownstreamConfig(
        actions=ACTIONS[:3], train_per_class=2, test_per_class=2, min_seconds=1.0, max_seconds=1.5
    )
    return write_ucf101(tmp_path_factory.mktemp("ucf101"), config)


Tell = Callable[..., str]


@pytest.fixture
def tell(story_server: SandboxServer, tmp_path_factory: pytest.TempPathFactory) -> Tell:
    """Runs the command against the server and gives its output: `tell("crawl", root, ray=False, code=0)`."""

    # Runs on a bucket keep a local copy in the temporary files: no other test's may be found there.
    temporary = {"TMPDIR": str(tmp_path_factory.mktemp("tmp"))}

    def told(*arguments: object, ray: bool = True, code: int = 0) -> str:
        program = ["-m", "jobs.cli"] if ray else ["-c", WITHOUT_RAY]
        contact = {"FLICKR_CONTACT": "a@b.c", "FLICKR_API_KEY": "sandbox", "FLICKR_REST_URL": story_server.rest_url}
        done = subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            cwd=TREE, env={**os.environ, **contact, **temporary}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    return told


@pytest.fixture(scope="session")
def fast() -> tuple[str, ...]:
    """Options of the verbs that ask the server: as fast as it answers."""
    return ("--flickr.calls-per-hour", "3000000", "--flickr.media-per-second", "1000")


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Options that make a training run tiny."""
    return TINY
