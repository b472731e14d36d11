"""Jobs whose model fails: the terminal says why and where, the process's log says all."""

import pytest

from .conftest import MODELS, last_error, result_of

MODEL = MODELS / "failing.py"


def line_of(text: str) -> str:
    lines = MODEL.read_text().splitlines()
    return f"{MODEL}:{1 + next(i for i, line in enumerate(lines) if text in line)}"


@pytest.fixture
def fail(start, logdir):
    def run(how, *options):
        command = start(
            *("run", f"{MODEL}:build", "--param", f"how={how}", "--logdir", logdir),
            *("--launcher", "process", "--workers", 1, *options),
        )
        assert command.wait() == 1
        return last_error(command)

    return run


def test_an_exception_in_a_python_function_of_the_model(fail, logdir):
    log = logdir / "logs" / "worker-0.log"
    assert fail("callback") == (
        "error: worker:0 failed: training failed: RuntimeError: the lookup service is not there "
        f"(raised at {line_of('raise RuntimeError')}; "
        f"op 'PyFunc', made at {line_of('numpy_function')})\n"
        f"the whole error is in {log}"
    )
    whole = log.read_text()
    assert "Original stack trace for 'PyFunc'" in whole
    result = result_of(logdir)
    assert result["reason"] == "failed"
    # The gradient of the step that fails may be there before the function that fails is called.
    assert result["global_step"] in (2, 3)
    assert "RuntimeError: the lookup service is not there" in result["error"]
    assert 'raise RuntimeError("the lookup service is not there")' in whole


def test_an_op_that_fails_in_the_chiefs_own_step(fail, start, logdir):
    log = logdir / "logs" / "chief-0.log"
    assert fail("chief", "--sync") == (
        "error: the chief failed: InvalidArgumentError: indices = 2 is not in [0, 2) "
        f"(op 'GatherV2', made at {line_of('tf.gather')})\nthe whole error is in {log}"
    )
    assert "Traceback" in log.read_text()
    status = start("status", "--logdir", logdir)
    assert status.wait() == 2
    assert "the last job here failed: the chief failed: InvalidArgument" in last_error(status)
