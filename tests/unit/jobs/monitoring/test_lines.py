"""The facts as plain lines of a log."""

from __future__ import annotations

from jobs.monitoring.lines import brief, details
from tests.unit.jobs.monitoring.sample_facts import facts


def test_the_line_says_phase_images_rate_failures_and_time_left() -> None:
    assert brief(facts()) == "making images (1 loading) 6223/12853 images, 2.31 images/s, 6 failed, 3h 20m left"
    bare = facts(detail="", counts=(), rate=None, left=None)
    assert brief(bare) == "making images"


def test_the_other_facts_are_a_few_lines_more() -> None:
    assert list(details(facts())) == [
        "img2img 120/250 (2 failed), text2img 6100/12600 (1 failed), invalid 3/3 (3 failed)",
        "2.31 images/s now, 2.21 images/s overall, 3h 20m (3h 03m to 3h 53m) left",
        "prior: all done, 0.034 TFLOP/s in its calls",
        "decoder: 7 of 8 up, 1 loading, 97% of the time in device calls, 81 TFLOP/s in its calls, 14 batches waiting",
        "6 of 14 shards sealed",
        "lost: 3 workers (2 out of memory, 1 hung); 3 batches made again",
        f"newest failure: row 132 (cat-132) failed_to_load: no file 132 {'x' * 90}",
    ]


def test_what_is_not_known_takes_no_line() -> None:
    bare = facts(
        counts=facts().counts[:1], rate=None, overall_rate=None, left=None, pools=(), shards=0, failures=(), lost={}
    )
    assert list(details(bare)) == []
