"""Waiting for what other threads and processes do."""

import time

# Far above what anything takes; only so that a hang becomes a failure.
PATIENCE_SECS = 120.0


def until(condition, what="", patience_secs=PATIENCE_SECS, *, look_secs=0.02, ignored=()):
    """Waits until a condition gives something true, and returns it.

    Args:
        condition: Called without arguments, again and again.
        what: What is waited for, or a function that describes it once time has run out.
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
