"""What can go wrong, in three families; anything else is a bug and is raised as it is.

UserError    the user's mistake: one clear line with the value and the way out, exit code 2
Dropped      data about the world: this video ends as a row with a reason, the others go on
Transient    worth another try: a connection reset, a 503, a worker that died
"""

REASONS = frozenset({
    "gone", "private", "no_video_url", "still_processing", "never_playable",  # what the source says of it
    "filtered_license", "filtered_duration", "filtered_safety", "filtered_date", "class_too_small",
    "taken_down",  # what the user asked to leave out
    "timeout", "too_slow", "http_4xx", "http_5xx", "connection", "truncated", "too_large", "not_a_video",  # fetching
    "no_video_stream", "too_long", "too_many_pixels", "decode_failed", "decoder_crashed", "decoder_timeout",
    "encode_failed",  # transcoding
})  # fmt: skip
"""The fixed words for why a video was dropped. `ok` is the word for one that was not."""


class UserError(ValueError):
    """A mistake of the user's, told in one line that names the value and the way out."""


class Dropped(Exception):
    """This one video cannot be had; `reason` is one of REASONS, `detail` is for people."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        assert reason in REASONS, reason
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class Transient(Exception):
    """A failure of the moment; `retry_after_seconds` is what the other side asked for, where it did."""

    def __init__(self, detail: str, reason: str = "connection", retry_after_seconds: float | None = None) -> None:
        super().__init__(detail, reason, retry_after_seconds)
        assert reason in REASONS, reason
        self.detail = detail
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        return self.detail
