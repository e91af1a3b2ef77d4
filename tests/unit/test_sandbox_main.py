import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from pipeline.sandbox.__main__ import main


def test_it_serves_until_interrupted_and_tells_how_to_use_it(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-u",
        "-m",
        "pipeline.sandbox",
        "--videos",
        "20",
        "--port",
        "0",
        "--cache",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(4))
        url = re.search(r"export FLICKR_REST_URL=(\S+)", told)
        assert url is not None
        assert "export FLICKR_API_KEY=sandbox" in told
        assert requests.get(url[1], params={"method": "flickr.test.echo", "api_key": "sandbox"}).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--videos", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: a world needs more videos than photos")
