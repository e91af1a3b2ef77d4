import csv
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.idlist import REJECTS_KEY, commit_idlist, read_idlist
from pipeline.records import from_parquet
from pipeline.store import FolderStore
from pipeline.units import Ledger


def test_the_released_lists_are_read(shared: Path) -> None:
    lists = shared / "data" / "noisyactions2m"
    listed = read_idlist(lists / "multi_trainlist25k.txt", classes=lists / "multi_classInd25k.txt")
    assert (len(listed.records), len(listed.rejects)) == (27_568, 0)
    by_id = {r.video_id: r.concepts for r in listed.records}
    assert by_id["4150867360"] == ("Pond", "pond")
    assert sum(map(len, by_id.values())) / len(by_id) == pytest.approx(8.8, abs=0.02)


def test_junk_lines_are_kept_as_rejects_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("1 swing\n2 dive\n")
    (tmp_path / "ids.txt").write_text(
        "123 1\n\n../../x 1\n124.mp4 2|1\nhello\n125 3\n126 1|x\n123 2\n\u0661\u0662 1\n" + "9" * 30 + " 1\n127\n"
    )
    listed = read_idlist(tmp_path / "ids.txt", classes=tmp_path / "classes.txt")
    assert {r.video_id: r.concepts for r in listed.records} == {
        "123": ("dive", "swing"), "124": ("dive", "swing"), "127": (),
    }  # fmt: skip
    assert [(r.line, r.why) for r in listed.rejects] == [
        (3, "no Flickr id"), (5, "no Flickr id"), (6, "label '3' is not one of the classes 1 to 2"),
        (7, "label 'x' is not one of the classes 1 to 2"), (9, "no Flickr id"), (10, "no Flickr id"),
    ]  # fmt: skip
    ledger = Ledger(FolderStore(tmp_path / "root"), "ids", {})
    commit_idlist(ledger, listed)
    commit_idlist(ledger, listed)
    (commit,) = ledger.commits()
    assert list(from_parquet(ledger.store.read(commit.outputs[0].key))) == list(listed.records)
    rows = list(csv.DictReader(ledger.store.read(REJECTS_KEY).decode().splitlines()))
    assert rows[0] == {"line": "3", "text": "../../x 1", "why": "no Flickr id"}
    assert len(rows) == 6


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", r"holds no ids; expected lines such as '4960396261 17\|4'"),
        (b"hello world\n", r"holds no ids: line 1 is 'hello world' \(no Flickr id\)"),
        (b"\xff\xfe", "is not text in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_list_is_told(tmp_path: Path, data: bytes | None, told: str) -> None:
    if data is not None:
        (tmp_path / "ids.txt").write_bytes(data)
    with pytest.raises(UserError, match=told):
        read_idlist(tmp_path / "ids.txt")
