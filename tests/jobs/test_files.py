"""Real jobs that read files without counts by hand: what each row counted is in the model."""

import os
import signal

import pytest

from support.waiting import until

from .conftest import MODELS, find_chief_or_none, result_of, status_of
from .test_shards import pid_of, seen

ROWS = f"{MODELS / 'rows.py'}:build"


@pytest.fixture
def write(tmp_path):
    """Writes a folder of three CSV files with 40 rows each, some of them of two lines."""

    def write(bad=None, more=0):
        for part in range(3):
            numbers = range(40 * part, 40 * part + 40 + more * (part == 2))
            rows = {n: f'{n},"two\nlines"' if n % 7 == 0 else f"{n},one" for n in numbers}
            rows |= {bad: "torn"} if bad in rows else {}
            text = "\n".join(["number,text", *rows.values()])
            (tmp_path / f"part-{part}.csv").write_text(text)
        return str(tmp_path / "part-*.csv")

    return write


def run(start, logdir, files, workers, *options):
    return start(
        *("run", ROWS, "--launcher", "process", "--workers", workers, "--logdir", logdir),
        *("--param", f"files={files}", "--param", "rows=120", "--param", "epochs=2"),
        *("--lease-secs", 3, *options),
    )


def test_a_torn_row_ends_a_job_and_once_it_is_mended_every_row_counts_once(start, logdir, write):
    command = run(start, logdir, write(bad=52), 2, "--async")
    assert command.wait() == 1
    assert "part-1.csv (5) cannot be trained on: failed 3 times" in command.output
    assert "record 12: " in command.output

    again = run(start, logdir, write(), 2, "--async")
    assert again.wait() == 0
    assert seen(logdir) == {2.0: 120}
    assert result_of(logdir)["bad_records"] == 0
    assert len(list(logdir.glob("input_index-*.json"))) == 1

    changed = run(start, logdir, write(more=1), 2, "--async")
    assert changed.wait() == 2
    assert "files that have changed since: " in changed.output
    assert "part-2.csv (40 then, 41 now)" in changed.output


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["--sync", "--async"])
def test_a_worker_is_killed_and_a_row_is_torn_and_all_others_count_once(start, logdir, write, mode):
    files = write(bad=52)
    command = run(start, logdir, files, 3, mode, "--max-bad-records", 5, "--param", "slow=0.5")
    address = until(lambda: find_chief_or_none(logdir))
    until(lambda: (s := status_of(address)) and s.global_step >= 3)
    os.kill(pid_of(address, "worker", 1), signal.SIGKILL)
    assert command.wait() == 0
    assert "input: 5 records were left out" in command.output
    assert "part-1.csv, records 10 to 14: failed 3 times" in command.output
    result = result_of(logdir)
    assert (result["examples"], result["bad_records"]) == (2 * 115, 5)
    counts = seen(logdir)
    assert counts[0.0] == 5
    # The last step of a sync job is filled up with batches that it has read already.
    assert counts.get(2.0, 0) >= 110
