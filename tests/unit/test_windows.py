from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.windows import (
    BLUR_SECONDS,
    FLICKR_VIDEO_LAUNCH,
    MIN_WINDOW_SECONDS,
    SAFE_RESULTS,
    Direction,
    Window,
    begins_before,
    is_last,
    is_ordered,
    pieces_behind,
    pieces_for,
)

windows = st.builds(
    lambda start, length: Window(start=start, end=start + length - 1), st.integers(0, 2**31), st.integers(1, 2**30)
)


@given(window=windows, pieces=st.integers(1, 12))
def test_cutting_covers_the_window_and_never_overlaps(window: Window, pieces: int) -> None:
    parts = window.cut(pieces)
    assert (parts[0].start, parts[-1].end) == (window.start, window.end)
    assert all(one.end + 1 == other.start for one, other in pairwise(parts))
    assert all(part.length >= 1 for part in parts)


@given(window=windows, total=st.integers(0, 10**7))
def test_a_window_is_cut_only_where_it_is_too_full_and_long_enough(window: Window, total: int) -> None:
    pieces = pieces_for(total, window)
    assert 1 <= pieces <= 12
    if pieces == 1:
        assert total <= SAFE_RESULTS or window.length < 2 * MIN_WINDOW_SECONDS
    else:
        assert all(part.length >= MIN_WINDOW_SECONDS for part in window.cut(pieces))


DIRECTIONS: list[Direction] = ["forward", "backward"]


@given(window=windows, dates=st.lists(st.integers(0, 2**32), max_size=500), direction=st.sampled_from(DIRECTIONS))
def test_what_is_left_shrinks_and_stays_inside(window: Window, dates: list[int], direction: Direction) -> None:
    rest = window.rest(dates, direction)
    assert window.start <= rest.start <= rest.end <= window.end
    assert rest.end == window.end if direction == "forward" else rest.start == window.start


def test_the_next_call_begins_where_a_tenth_of_the_page_is_seen_again() -> None:
    window, dates = Window(start=0, end=10_000), list(range(1000, 1500))
    assert window.rest(dates, "forward") == Window(start=1449, end=10_000)
    assert window.rest(dates[::-1], "backward") == Window(start=0, end=1050)
    assert window.rest([], "forward") == window


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("license_number", [None, 4])
def test_around_a_crowd_nothing_is_lost_and_no_call_meets_it_twice(
    direction: Direction, license_number: int | None
) -> None:
    window = Window(start=5_000, end=50_000, license=license_number)
    parts = window.around_crowd(direction, range(3))
    second = 5_000 if direction == "forward" else 50_000
    crowd = [part for part in parts if part.asked[0] <= second <= part.asked[1]]
    assert [part.license for part in crowd] == ([0, 1, 2] if license_number is None else [])
    assert all((part.start, part.end) == (second, second) for part in crowd)
    others = sorted((part.start, part.end) for part in parts if part not in crowd)
    inner = (5_001, 50_000) if direction == "forward" else (5_000, 49_999)
    assert (others[0][0], others[-1][1]) == inner
    assert all(one[1] + 1 == other[0] for one, other in pairwise(others))


def test_around_a_crowd_at_the_edge_only_the_crowd_is_left() -> None:
    parts = Window(start=7, end=7).around_crowd("forward", [0])
    assert parts == [Window(start=7, end=7, license=0)]


def test_calls_ask_beyond_the_bounds_but_not_before_the_beginning_of_time() -> None:
    assert Window(start=100, end=200).asked == (0, 200 + BLUR_SECONDS)
    assert Window(start=100, end=200, blurred=False).asked == (100, 200)


def test_windows_have_different_names() -> None:
    window = Window(start=1, end=2)
    others = [Window(start=1, end=3), Window(start=1, end=2, license=1), Window(start=1, end=2, blurred=False)]
    assert len({w.name for w in (window, *others)}) == 4


@pytest.mark.parametrize(
    ("rows", "total", "page", "last"),
    [
        (0, 0, 1, True),
        (449, 500, 1, True),
        (450, 450, 1, False),  # perhaps a total that under-reports and a page that is thinned
        (100, 501, 1, False),  # a thinned page
        (100, 900, 2, True),
        (500, 100, 1, False),
    ],
)
def test_neither_a_short_page_nor_a_small_total_alone_ends_a_walk(rows: int, total: int, page: int, last: bool) -> None:
    assert is_last(rows, total, page) is last


def test_a_page_the_wrong_way_round_is_seen_but_not_some_rows_out_of_place() -> None:
    dates = list(range(100))
    dates[10], dates[80] = dates[80], dates[10]
    assert is_ordered(dates, "forward")
    assert not is_ordered(dates, "backward")
    assert is_ordered([5, 4, 3], "forward")
    assert is_ordered([5] * 60, "backward")


def test_a_window_is_halved_until_it_is_as_short_as_a_window_may_be() -> None:
    window = Window(start=FLICKR_VIDEO_LAUNCH, end=1_800_000_000)
    for way in DIRECTIONS:
        left, cuts = window, 0
        while halves := left.halves(way):
            assert sorted((h.start, h.end) for h in halves) == sorted((h.start, h.end) for h in left.cut(2))
            assert (halves[0].start < halves[1].start) == (way == "forward")
            left, cuts = halves[0], cuts + 1
        assert cuts <= 19
        assert left.length >= MIN_WINDOW_SECONDS


def test_after_a_page_that_was_not_shown_the_next_call_begins_a_tenth_of_a_page_before_what_is_seen() -> None:
    dates = list(range(10_000, 15_000, 10))
    window = Window(start=9_000, end=16_000)
    assert begins_before(dates, window, "forward", pages=3) == [9_500, 10_000]
    assert begins_before(dates, window, "backward", pages=3) == [15_490, 14_990]
    assert begins_before([10_000], window, "forward", pages=2) == [9_950, 10_000]
    assert begins_before([10_000], window, "backward", pages=2) == [10_300, 10_000]
    assert begins_before([], window, "forward", pages=1) == []


def test_a_query_is_cut_only_where_a_page_shows_that_there_is_something() -> None:
    window = Window(start=FLICKR_VIDEO_LAUNCH, end=1_800_000_000)
    assert pieces_behind(500, 10_000, window) == pieces_for(10_000, window) > 1
    assert pieces_behind(100, 10_000, window) == 1
    assert pieces_behind(500, 2_000, window) == 1
