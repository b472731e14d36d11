"""The worker's graph for each layout of the model, built in advance if the layout is known."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from ..cluster.deadline import call_in_background
from ..model.graph import TrainGraph

log = logging.getLogger(__name__)


class Graphs:
    """Builds graphs, one at a time.

    Args:
        build: Builds one, given the number of parameter servers and the number of the layout.
    """

    def __init__(self, build: Callable[[int, int], TrainGraph]) -> None:
        self._build = build
        self._next: tuple[tuple[int, int], Future[TrainGraph]] | None = None
        self._lock = threading.Lock()

    def foresee(self, num_ps: int, layout: int) -> None:
        """Begins to build a graph that may be wanted, in a thread; steps continue meanwhile.

        Args:
            num_ps: Parameter servers.
            layout: The number of the layout.
        """
        key = (num_ps, layout)
        if self._next is None or self._next[0] != key:
            log.info("building the graph for %d parameter servers in advance", num_ps)
            self._next = key, call_in_background("next-graph", lambda: self._build_one(*key))

    def take(self, num_ps: int, layout: int) -> TrainGraph:
        """Returns the graph for a layout; waits for it, or builds it now.

        Args:
            num_ps: Parameter servers.
            layout: The number of the layout.

        Raises:
            ParamserveError: See `build_train_graph`.
        """
        foreseen, self._next = self._next, None
        if foreseen is not None and foreseen[0] == (num_ps, layout):
            return foreseen[1].result()
        return self._build_one(num_ps, layout)

    def _build_one(self, num_ps: int, layout: int) -> TrainGraph:
        # Names of Keras layers are counted for the whole process.
        with self._lock:
            return self._build(num_ps, layout)
