"""The start-up messages of TensorFlow are left out, and nothing else."""

import re
import signal
import subprocess
import sys

import pytest

from paramserve.cluster import startup_noise
from paramserve.cluster.startup_noise import is_noise

NO_DRIVER = (
    "E0000 00:00:1796056894.428816   17318 cuda_platform.cc:52] failed call to cuInit: "
    "INTERNAL: CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)"
)
BANNER = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1796056883.072017   17318 cudart_stub.cc:31] Could not find cuda drivers on "
    "your machine, GPU will not be used.",
    NO_DRIVER,
]
NEWS = [
    NO_DRIVER.replace("UNKNOWN ERROR (303)", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH: (803)"),
    "E0000 00:00:1796056894.428816   17318 cuda_dnn.cc:522] Loaded runtime CuDNN library: 8.2.1",
    "W0000 00:00:1796056894.428816   17318 gpu_device.cc:2342] Cannot dlopen some GPU libraries",
    "F0000 00:00:1796056894.428816   17318 cpu_feature_guard.cc:36] The TensorFlow library was "
    "compiled to use AVX512F instructions, but these aren't available on your machine.",
    "2026-11-30 16:41:45 I paramserve.worker.service_session: session over generation 1",
    "error: the loss is NaN",
]


@pytest.mark.parametrize("line", BANNER)
def test_what_is_said_at_every_start_is_noise(line):
    assert is_noise(line)


@pytest.mark.parametrize("line", NEWS)
def test_a_real_error_of_a_gpu_is_none(line):
    assert not is_noise(line)


LOAD = """
import os, signal, sys
from paramserve.cluster import startup_noise
startup_noise.has_gpus = lambda: {has_gpus}
with startup_noise.without_noise():
    os.write(2, sys.argv[1].encode())
    {end}
print("later: I0000 of the user's own", file=sys.stderr)
print("I0000 ", file=sys.stderr)
"""


def load(*, has_gpus=False, end="pass"):
    """Loads something that says all lines, and returns the exit code and standard error."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            LOAD.format(has_gpus=has_gpus, end=end),
            "\n".join([*BANNER, *NEWS, ""]),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


def test_only_the_noise_of_loading_is_left_out():
    assert load() == (0, [*NEWS, "later: I0000 of the user's own", "I0000 "])


def test_a_load_that_crashes_has_its_last_words():
    assert load(end="os.kill(os.getpid(), signal.SIGABRT)") == (-signal.SIGABRT, NEWS)


def test_a_load_that_raises_leaves_standard_error_as_it_was():
    code, lines = load(end="raise ImportError('no such library')")
    assert code == 1
    assert lines[: len(NEWS)] == NEWS
    assert lines[-1] == "ImportError: no such library"


def test_with_gpus_every_line_counts():
    assert load(has_gpus=True)[1][: len(BANNER + NEWS)] == BANNER + NEWS


def test_a_role_at_a_terminal_says_nothing_of_gpus_that_are_not_there():
    if startup_noise.has_gpus():
        pytest.skip("this machine has GPUs, and TensorFlow should report them")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "paramserve", "ps", "--chief", "localhost:9"),
            *("--max-wait-secs", "0.2", "--host", "localhost"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error: max_wait_secs=0.2 ran out")
    assert not re.search("cuda|oneDNN|absl", done.stderr, re.IGNORECASE)
