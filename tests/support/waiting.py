"""Waiting for what other threads and processes do."""

import time

# Far above any normal duration; it only turns a hang into a failure.
PATIENCE_SECS = 120.0


def until(condition, what="", patience_secs=PATIENCE_SECS, *, look_secs=0.02, ignored=()):
    """Waits until a condition gives something true, and returns it.

    Args:
        condition: Called without arguments, again and again.
        what: The awaited state, or a function that describes it after a timeout.
        patience_secs: Time after which the test fails.
        look_secs: Pause between two calls.
        ignored: Errors of the condition that mean "not yet".
    """
    deadline = time.monotonic() + patience_secs
    while time.monotonic() < deadline:
        try:
            if value := condition():
                return value
        except ignored:
            pass
        time.sleep(look_secs)
    description = what() if callable(what) else what or condition
    raise AssertionError(f"not within {patience_secs:g} s: {description}")
