"""A clock that a test turns."""


class Clock:
    """A clock that moves when a test says so.

    Attributes:
        now: The time that it shows, in seconds.
    """

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, secs):
        self.now += secs
