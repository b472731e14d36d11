"""Calls in threads, whose results and errors a test asks for later."""

import threading


class Background:
    """A call in a thread; `result` raises its error."""

    def __init__(self, call):
        self._value = self._error = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call):
        try:
            self._value = call()
        except BaseException as error:
            self._error = error

    @property
    def is_running(self):
        return self._thread.is_alive()

    def still_runs_after(self, secs):
        self._thread.join(secs)
        return self.is_running

    def result(self):
        self._thread.join(60)
        assert not self.is_running, "the call did not return"
        if self._error is not None:
            raise self._error
        return self._value
