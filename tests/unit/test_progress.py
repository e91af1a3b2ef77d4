import pytest

from jobs.progress import Bar, duration, show_outcomes, show_table


def test_a_table_shows_cells_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("errors", ("unit", "error", "tries"), [("a", "[/work/x] and [mp4 @ 0x1]", 12345)])
    shown = capsys.readouterr().out
    assert "[/work/x] and [mp4 @ 0x1]" in shown
    assert "12,345" in shown


def test_outcomes_are_ordered_and_shared_out(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcomes("outcomes", {"gone": 1, "ok": 3})
    shown = capsys.readouterr().out
    assert shown.index("ok") < shown.index("gone")
    assert "75.0%" in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (59.9, "60 s"), (3600, "1 h 00 min")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_bar_tells_what_was_done_before_and_at_which_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("build", total=5, noun="units", done=2) as bar:
        bar.advance(3)
    shown = capsys.readouterr().out
    assert "2 of 5 units were done before" in shown
    assert "build: 3 units in" in shown
