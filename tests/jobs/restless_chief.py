"""The `paramserve` command, with a chief that has everybody open new sessions again and again.

The file that RESTLESS names says how often in all; it may be changed meanwhile.
"""

import os
import threading
from pathlib import Path

from paramserve.chief import process
from paramserve.chief.membership.membership import Membership
from paramserve.cli.app import main
from paramserve.cluster.spec import Role


class RestlessMembership(Membership):
    """Begins a new generation whenever all workers have made steps in the one before."""

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self._wanted = Path(os.environ["RESTLESS"])
        self._steps_at_renewal = {}
        threading.Thread(target=self._renew_again_and_again, daemon=True).start()

    def _renew_again_and_again(self) -> None:
        renewals = 0
        while True:
            with self.changed:
                self.changed.wait(0.1)
                if renewals < int(self._wanted.read_text()) and self._is_trained():
                    renewals += 1
                    self._steps_at_renewal = self._steps()
                    self.renew_generation()

    def _is_trained(self) -> bool:
        before, now = self._steps_at_renewal, self._steps()
        is_ready = self._ready_generation == self._generation > 0
        return is_ready and bool(now) and all(n > before.get(w, 0) for w, n in now.items())

    def _steps(self) -> dict:
        return {r.task: r.report.local_steps for r in self.up(Role.WORKER)}


process.Membership = RestlessMembership
main()
