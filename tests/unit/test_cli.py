import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import VERBS

TREE = Path(__file__).parents[2]


def noisyactions(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TREE)


def test_the_overview_names_every_verb_and_each_is_a_module() -> None:
    done = noisyactions("--help")
    assert done.returncode == 0
    assert all(f"  {verb}" in done.stdout for verb in VERBS)
    assert all((TREE / "jobs" / f"{verb}.py").is_file() for verb in VERBS)


@pytest.mark.parametrize("verb", ["vocabulary", "plan", "crawl", "build", "fsck", "split"])
def test_help_teaches_what_a_verb_reads_writes_and_costs(verb: str) -> None:
    done = noisyactions(verb, "--help")
    assert done.returncode == 0, done.stderr
    for word in ("eads", "rites"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["buidl"], "unknown verb 'buidl': did you mean 'build'?"),
        (["build", "{tmp}/none"], "does not exist: run the earlier verbs first"),
        (["build", "{tmp}/root", "--folder", "{tmp}/none"], "source folder {tmp}/none does not exist"),
        (["build", "{tmp}/root", "--folder", "{tmp}/empty"], "holds no video files"),
        (["build", "{tmp}/root", "--folder", "{tmp}/text"], "x.mp4 is text, not a video"),
        (["build", "{tmp}/root", "--folder", "{tmp}/empty", "--table", "t.csv"], "one source at a time"),
        (["build", "{tmp}/root", "--foldr", "x"], "Unrecognized options"),
        (["build", "{tmp}/root", "--where.workers", "two"], "two"),
        (["build", "{tmp}/root", "--where.workers", "-1"], "workers must be 0 or more"),
        (["build", "/proc/nowhere", "--folder", "{tmp}/text"], "cannot be written"),
        (["crawl", "{tmp}/empty"], "no Flickr API key: set FLICKR_API_KEY"),
        (["crawl", "{tmp}/empty", "--flickr.calls-per-hour", "7200"], "over Flickr's limit of 3600"),
        (["vocabulary", "{tmp}/root"], "no action names: give --labels"),
        (["crawl", "{tmp}/empty", "--ids", "{tmp}/none"], "id list {tmp}/none cannot be read"),
        (["crawl", "{tmp}/empty", "--min-videos", "0"], "min_videos 0 must be 1 or more"),
        (["crawl", "{tmp}/empty", "--keep.licenses", "-4"], "licenses"),
        (["plan", "{tmp}/empty", "--sample", "1"], "sample 1 must be 2 or more"),
        (["vocabulary", "{tmp}/root", "--labels", "ucf101:{tmp}/none"], "none"),
        (["vocabulary", "{tmp}/root", "--names", "a", "--names", "b"], "--names is given 2 times: give it once"),
        (["fsck", "{tmp}/empty"], "holds no shards: run `noisyactions build`"),
        (["split", "{tmp}/empty"], "holds no shards"),
        (["pretrain", "no_such_recipe", "{tmp}/empty"], "unknown recipe 'no_such_recipe': one of"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.mp4").write_text("hello")
    done = noisyactions(*(a.format(tmp=tmp_path) for a in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert told.format(tmp=tmp_path) in done.stderr


def test_the_config_can_be_printed_instead_of_run(tmp_path: Path) -> None:
    done = noisyactions("build", str(tmp_path), "--settings.videos-per-shard", "7", "--print-config")
    assert done.returncode == 0
    assert '"videos_per_shard": 7' in done.stdout
