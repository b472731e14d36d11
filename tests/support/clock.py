"""A clock that a test turns."""


class Clock:
    """Seconds that pass when a test says so.

    Attributes:
        now: What the clock shows.
    """

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, secs):
        self.now += secs
