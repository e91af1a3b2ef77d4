import pickle

import pytest

from pipeline.errors import Dropped, Transient, UserError
from pipeline.limits import LocalPermits, Rate, _Bucket, backoff_seconds


def test_a_bucket_spaces_requests_after_its_burst() -> None:
    bucket = _Bucket(Rate(per_second=2.0, burst=3))
    waits = [bucket.reserve(100.0) for _ in range(6)]
    assert waits == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])


def test_no_hour_sees_more_than_the_limit_and_the_burst() -> None:
    bucket = _Bucket(Rate(per_second=0.9, burst=5))
    now, times = 1000.0, []
    for _ in range(5000):
        now += bucket.reserve(now)
        times.append(now)
    most = max(sum(1 for t in times if a <= t < a + 3600) for a in times[:50])
    assert most <= 3600


def test_throttling_pauses_everyone_then_halves_the_rate_which_creeps_back() -> None:
    bucket = _Bucket(Rate(per_second=1.0))
    bucket.reserve(0.0)
    bucket.throttled(10.0, 30.0)
    assert bucket.reserve(11.0) == pytest.approx(29.0)
    assert bucket.reserve(40.0) == pytest.approx(2.0)
    later = [bucket.reserve(1000.0 + i) for i in range(3)]
    assert later == pytest.approx([0, 0, 0])


def test_a_storm_of_429s_is_one_throttling() -> None:
    bucket = _Bucket(Rate(per_second=8.0))
    bucket.reserve(50.0)
    for _ in range(10):
        bucket.throttled(50.2, 1.0)
    bucket.reserve(52.0)
    assert bucket.reserve(52.0) == pytest.approx(0.25)


def test_a_host_that_is_down_for_an_hour_is_still_asked_now_and_then() -> None:
    bucket = _Bucket(Rate(per_second=1.0))
    flights = [0.0] * 32  # when each download in flight will be answered, with a 503
    waits = []
    while min(flights) < 3600:
        now = min(flights)
        bucket.throttled(now, 30.0)
        waits.append(bucket.reserve(now))
        flights[flights.index(now)] = now + waits[-1] + 0.1
    assert max(waits) < 32 * 16 + 60


def test_names_have_budgets_of_their_own() -> None:
    permits = LocalPermits({"flickr": Rate(per_second=0.001)}, default=Rate(per_second=1000.0))
    assert permits.reserve("flickr") == 0
    assert permits.reserve("flickr") > 900
    assert permits.reserve("live.example.org") == 0


def test_backoff_honours_what_was_asked_and_grows_otherwise() -> None:
    assert backoff_seconds(1, asked=17.0) == 17.0
    assert backoff_seconds(1, asked=1e9) == 900.0
    assert 2.0 <= backoff_seconds(4) <= 4.0
    assert backoff_seconds(20) <= 60.0


@pytest.mark.parametrize(
    "error", [UserError("a"), Dropped("gone", "404"), Transient("slow", "timeout", retry_after_seconds=3.0)]
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
