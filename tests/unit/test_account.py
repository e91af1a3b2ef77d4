import json
from pathlib import Path

from jobs.account import crawl_account
from jobs.burndown import PLAN_KEY, Burndown, planned_calls
from jobs.crawl import ROT_KEY, SUMMARY_KEY
from jobs.report import render_report
from pipeline.catalogue import open_catalogue
from pipeline.completeness import Estimate, write_completeness
from pipeline.crawl import commit_answers, search_unit, summarise
from pipeline.records import VideoRecord
from pipeline.rounds import Round, begin_rounds, finish_round
from pipeline.store import FolderStore, Store
from pipeline.units import Ledger
from pipeline.vocabulary import Query

SWING = Query(kind="concept", concept="swing", text="swing")


def crawl(store: Store) -> None:
    """What a small crawl leaves on a root."""
    asked = Round(since=1_207_008_000, until=1_600_000_000)
    begin_rounds(store, [asked])
    ledger = Ledger(store, "crawl", {})
    records = [VideoRecord(video_id=str(n), concepts=("swing",)) for n in range(12)]
    few = [VideoRecord(video_id="99", concepts=("dive",))]
    commit_answers(ledger, search_unit(SWING, asked.window), records, [], {"truncated_windows": 1, "calls": 3})
    commit_answers(ledger, search_unit(SWING, asked.window.cut(2)[0]), few, [], {"calls": 2})
    store.write(SUMMARY_KEY, json.dumps(summarise(ledger)).encode())
    info = [VideoRecord(video_id="3", dropped="gone")]
    commit_answers(Ledger(store, "info", {}), search_unit(SWING, asked.window), info, [], {})
    finish_round(store, asked)
    write_completeness(store, asked.window, [Estimate(query="swing", found=12, found_again=11, found_by_both=10)])
    with open_catalogue(store, min_videos=11) as catalogue:
        catalogue.write()


def test_a_crawl_is_told_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    crawl(store)
    plan = {"plan": "B", "calls": 30, "hours": 0.5, "media_bytes": 2e9, "stored_bytes": 1e9}
    store.write(PLAN_KEY, json.dumps({"at": 1_600_000_000, "calls_before": 0, "plans": [plan]}).encode())
    store.write(ROT_KEY, json.dumps({"ids": 40, "alive": 10}).encode())
    burndown = Burndown(store, plan="B")
    assert burndown.note({"calls": 5}) == "5 of about 30 calls"
    burndown.write()
    told = crawl_account(store)
    assert told is not None
    assert told["outcomes"] == [("ok", 11), ("class_too_small", 1), ("gone", 1)]
    assert (told["videos"], told["calls"]) == (13, 5)
    assert told["summary"]["counts"]["calls"] == 5
    assert len(told["summary"]["truncated"]) == 1
    assert told["classes"] == {"kept": 1, "dropped": 1}
    page = render_report(store)
    for words in (
        "uploads from 2008-04-01", "1 windows hold more than Flickr shows: swing-", "planned: 30", "25.0 %",
        "getInfo + getSizes; comments only where there are any", "class_too_small", "91.0 %",
    ):  # fmt: skip
        assert words in page, words


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert crawl_account(store) is None
    assert "<h2>Crawl</h2>" not in render_report(store)
    crawl(store)
    told = crawl_account(store)
    assert told is not None
    assert (told["plans"], told["burndown"], told["rot"]) == (None, None, None)
    assert "<h2>Crawl</h2>" in render_report(store)


def test_a_burn_down_goes_on_from_run_to_run_and_stays_small(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert planned_calls(store, "B") is None
    for _ in range(3):
        burndown = Burndown(store, plan="B")
        assert burndown.note({"calls": 7}).endswith(" calls")
        burndown.write()
    assert Burndown(store, plan="B").calls == 21
    for _ in range(2100):
        burndown.note({"calls": 1})
    for _ in range(2100):
        burndown.write()
    kept = json.loads(store.read("crawl/burndown.json"))["curve"]
    assert 900 < len(kept) < 2100
    assert kept[-1][1] == 21 + 2100
