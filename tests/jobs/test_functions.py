"""Build functions given as such: how other processes find them, or why they cannot."""

import functools
import inspect
import sys
import types

import pytest

from paramserve.errors import UsageError
from paramserve.jobs.functions import reference_to


def build(task): ...


def logged(function):
    @functools.wraps(function)
    def call(task):
        return function(task)

    return call


@logged
def decorated(task): ...


class Model:
    def build(self, task): ...

    def __call__(self, task): ...


def defined_in(filename, **module):
    """A function as an interpreter makes it, in a `__main__` that may have a file."""
    main = types.ModuleType("ps_test_main")
    vars(main).update(module)
    sys.modules["ps_test_main"] = main
    exec(compile("def build(task): ...", filename, "exec"), vars(main))
    return main.build


@pytest.fixture(autouse=True)
def clean_up():
    yield
    sys.modules.pop("ps_test_main", None)


def test_a_function_is_found_by_its_file_and_name():
    assert reference_to(build) == f"{__file__}:build"
    # Not by the file where its decorator is.
    assert reference_to(decorated) == f"{__file__}:decorated"
    assert reference_to(inspect.unwrap) == f"{inspect.__file__}:unwrap"


@pytest.mark.parametrize("function", [lambda task: None, Model().build], ids=["lambda", "method"])
def test_what_no_import_can_find_is_explained(function):
    with pytest.raises(UsageError, match="no function at the top level of a file"):
        reference_to(function)


def test_a_closure_is_told_how_to_take_values():
    rate = 0.1

    def build(task):
        return rate

    with pytest.raises(UsageError, match=r"<locals>.build is no .* hand values to it with params"):
        reference_to(build)


@pytest.mark.parametrize("value", [functools.partial(build, rate=0.1), Model(), None, 3])
def test_what_is_no_function_is_named(value):
    with pytest.raises(UsageError, match="expected a build function") as caught:
        reference_to(value)
    assert ("params={...}" in str(caught.value)) == isinstance(value, functools.partial)


@pytest.mark.parametrize(
    ("filename", "place"),
    [
        ("<stdin>", "<stdin>"),
        ("<string>", "<string>"),
        ("/tmp/ipykernel_17/3062.py", "a notebook"),
        ("<ipython-input-3-4fae>", "a notebook"),
    ],
)
def test_an_interpreter_and_a_notebook_have_no_file_to_import(filename, place):
    with pytest.raises(UsageError, match=f"defined in {place}, .* save it as one") as caught:
        reference_to(defined_in(filename))
    assert "Job('model.py:build', ...)" in str(caught.value)


def test_a_file_that_is_gone_is_none(tmp_path):
    with pytest.raises(UsageError, match="no existing file"):
        reference_to(defined_in(str(tmp_path / "gone.py"), __file__=str(tmp_path / "gone.py")))
