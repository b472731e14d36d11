"""A small job whose every sample and weight is known, and what is said of it in the end."""

import contextlib
import json
import threading
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from paramserve.cluster.security import SecurityOptions
from paramserve.cluster.status_client import StatusClient, find_chief
from paramserve.errors import ParamserveError
from paramserve.jobs.job import Job

from .launcher import ForkingLauncher
from .model import BALLAST, BATCH, RATE, SOLUTION, path_after
from .network import loopback

ACCESS = SecurityOptions(insecure=True).access()
MODEL = Path(__file__).with_name("model.py")
HEARTBEAT_SECS, LEASE_SECS = 0.5, 3.0
RECORDS, EPOCHS = 1200, 2
# Far above what anything takes; only so that a hang becomes a failure.
PATIENCE_SECS = 180.0
LOOK_SECS = 0.02


class Trial:
    """A job of 2 parameter servers and 2 workers, which is slow until `hurry` is called.

    Args:
        fork_server: Where its processes come from.
        folder: Its files; the log directory is in it unless given.
        mode: "sync" or "async".
        place: Gives each process its host.
        params: Of the model, besides those that it needs.
        options: Of the job.
    """

    def __init__(
        self,
        fork_server,
        folder,
        mode,
        *,
        logdir=None,
        place=loopback,
        params=(),
        spares=0,
        **options,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        self.mode = mode
        self.logdir = Path(logdir or folder / "job")
        self.launcher = ForkingLauncher(fork_server, place)
        self.result = self.error = None
        self._go = folder / "go"
        self.params = {
            "records": RECORDS,
            "epochs": EPOCHS,
            "slow": 0.1,
            "go": str(self._go),
            **dict(params),
        }
        settings = {
            "num_ps": 2,
            "num_workers": 2,
            "max_restarts": 20,
            "heartbeat_secs": HEARTBEAT_SECS,
            "lease_secs": LEASE_SECS,
            "mirror_secs": 0.5,
            "save_checkpoint_secs": None,
            "max_wait_secs": 60.0,
            **options,
        }
        self._job = Job(
            f"{MODEL}:build",
            launcher=self.launcher,
            logdir=str(self.logdir),
            sync=mode == "sync",
            spares=spares,
            params={name: str(value) for name, value in self.params.items()},
            # Its network has no other host.
            security=SecurityOptions(insecure=True),
            **settings,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._client = None

    def start(self):
        self._thread.start()
        return self

    def _run(self):
        try:
            self.result = self._job.run(stop=self._stop)
        except BaseException as error:
            self.error = error

    # -- while it runs

    @property
    def is_over(self):
        return not self._thread.is_alive()

    def status(self):
        """Returns the chief's status; None when it does not answer."""
        try:
            address = find_chief(str(self.logdir))
            if self._client is None or self._client.address != address:
                self._client = StatusClient(address, ACCESS, timeout_secs=2)
            return self._client.status()
        except ParamserveError:
            return None

    def until(self, condition, what, *, may_end=False):
        """Waits until `condition(status)` is true of the job's status, and returns that.

        With `may_end` a job that ends meanwhile, for the test to judge how, is no error.
        """
        deadline = time.monotonic() + PATIENCE_SECS
        status = None
        while time.monotonic() < deadline and not self.is_over:
            status = self.status() or status
            if status is not None and condition(status):
                return status
            time.sleep(LOOK_SECS)
        if may_end and self.is_over:
            return status
        raise AssertionError(f"never came: {what}\n{self.describe(status)}")

    def until_trained(self, steps):
        """Waits until everything is there, and so many steps were made."""
        return self.until(
            lambda s: s.phase == "training" and s.global_step >= steps and self.is_whole(s),
            f"step {steps}, a restore point, and all processes",
        )

    def is_whole(self, status):
        """Returns whether all planned tasks are there, and a loss would cost little."""
        states = [(t.role, t.state) for t in status.tasks]
        job = self._job
        return (
            states.count(("ps", "up")) == job.options.num_ps
            and states.count(("worker", "up")) == job.options.num_workers
            and states.count(("ps", "spare")) >= job.processes.spares
            and status.restore_step > 0
        )

    def process(self, name):
        """The newest process of a name, as soon as there is one."""
        deadline = time.monotonic() + PATIENCE_SECS
        while (process := self.launcher.newest(name)) is None:
            assert time.monotonic() < deadline, self.describe()
            assert not self.is_over, self.describe()
            time.sleep(0.001)
        return process

    def save(self):
        """Asks for a checkpoint, and returns as soon as its first file is there."""
        before = set(self.logdir.iterdir())
        threading.Thread(target=self._save, daemon=True).start()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                if any("model.ckpt" in p.name for p in set(self.logdir.iterdir()) - before):
                    return
            time.sleep(0.001)

    def _save(self):
        with (
            contextlib.suppress(ParamserveError),
            StatusClient(find_chief(str(self.logdir)), ACCESS, timeout_secs=10) as client,
        ):
            client.save_checkpoint()

    def scale(self, num_ps):
        """Asks for another number of parameter servers."""
        with StatusClient(find_chief(str(self.logdir)), ACCESS, timeout_secs=10) as client:
            client.scale(ps=num_ps)

    def hurry(self):
        """Input is no longer slow."""
        self._go.touch()

    def ask_to_stop(self):
        self._stop.set()

    # -- when it is over

    def wait(self, secs=PATIENCE_SECS):
        """Waits for the job's end."""
        self._thread.join(secs)
        assert self.is_over, f"it does not end\n{self.describe(self.status())}"

    def end(self):
        """Ends what is left of it, whatever state it is in."""
        self._stop.set()
        deadline = time.monotonic() + 60
        while not self.is_over and time.monotonic() < deadline:
            for process in self.launcher.processes:
                process.end()
            self._thread.join(0.5)
        if self._client is not None:
            self._client.close()

    def judge(self, lost_batches=0):
        """Asserts that the job ended as an undisturbed one does, and left no process behind.

        Args:
            lost_batches: Batches that may have been applied without being counted, or twice.
        """
        if self.error is not None:
            raise AssertionError(f"it failed: {self.error}\n{self.describe()}")
        assert self.launcher.survivors == [], self.describe()
        result, epochs = self.result, int(self.params["epochs"])
        assert result.reason == "end_of_input", result
        checkpoint = tf.train.load_checkpoint(result.checkpoint)
        counts = checkpoint.get_tensor("paramserve/input")
        odd = counts[counts != epochs]
        assert len(odd) <= lost_batches, f"batches counted {sorted(odd.tolist())} times"
        assert abs(result.examples - epochs * RECORDS) <= lost_batches * BATCH
        np.testing.assert_array_equal(checkpoint.get_tensor("ballast"), BALLAST)
        np.testing.assert_allclose(checkpoint.get_tensor("fit"), SOLUTION, atol=1e-2)
        assert result.eval["loss"] < 1e-4
        if self.mode == "sync":
            expected = path_after(result.global_step)
            np.testing.assert_allclose(checkpoint.get_tensor("path"), expected, atol=1e-4)
        else:
            times = checkpoint.get_tensor("seen") / RATE
            odd = np.abs(times - epochs) > 0.01
            assert odd.sum() <= lost_batches * BATCH, f"{odd.sum()} records: {times[odd]}"

    def describe(self, status=None):
        """Describes the status, to explain a failure."""
        lines = [f"logs: {self._job.processes.log_folder}"]
        lines += [f"{p.name} (pid {p.pid}): {p.poll()}" for p in self.launcher.processes]
        if status is not None:
            lines.append(f"{status.phase} at step {status.global_step}: {status.detail}")
            lines += [f"{t.role}:{t.index} {t.state} {t.error}" for t in status.tasks]
        with contextlib.suppress(OSError, ValueError):
            result = json.loads((self.logdir / "result.json").read_text())
            lines.append(f"result: {result['reason']} at {result['global_step']}")
        return "\n".join(lines)
