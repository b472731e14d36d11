"""From a reference to a build function, and the messages when there is none."""

import sys
from pathlib import Path

import pytest

from paramserve.errors import UsageError
from paramserve.model.references import load_build, split_reference


@pytest.fixture(autouse=True)
def import_state(monkeypatch):
    """Restores the import system afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the working directory; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
        return name

    return write


def error_of(call, reference):
    with pytest.raises(UsageError) as caught:
        call(reference)
    return str(caught.value)


def test_a_function_in_a_file(write):
    write("models/toy.py", "def build(task):\n    return task + 1\n")
    assert split_reference("models/toy.py:build") == ("models/toy.py", "build")
    assert load_build("models/toy.py:build")(41) == 42


def test_a_function_in_a_module_of_the_working_directory(write):
    write("ps_test_module.py", "def build(task): return 'module'")
    assert load_build("ps_test_module:build")(None) == "module"


def test_a_function_in_a_package(write):
    write("ps_test_package/__init__.py", "")
    write("ps_test_package/inner.py", "def build(task): return 'inner'")
    assert load_build("ps_test_package.inner:build")(None) == "inner"


def test_a_file_can_import_its_neighbours(write):
    write("models/ps_test_layers.py", "WIDTH = 8")
    write("models/toy.py", "from ps_test_layers import WIDTH\ndef build(task): return WIDTH")
    assert load_build("models/toy.py:build")(None) == 8


@pytest.mark.parametrize(
    "definition",
    [
        "def build(task): ...",
        "class build:\n    def __init__(self, task): ...",
        "build = lambda task: None",
        "first = build = lambda task: None",
        "from os.path import join as build",
        "from os.path import *\nbuild = len",
        "if True:\n    def build(task): ...",
        "try:\n    build = len\nexcept ImportError:\n    build = None",
        "build: object = len",
        "other, build = len, len",
        "# -*- coding: latin-1 -*-\nname = 'caf\xe9'\nbuild = len",
    ],
)
def test_however_the_name_is_bound_it_is_found(write, definition):
    write("toy.py", "")
    Path("toy.py").write_bytes(definition.encode("latin-1"))
    split_reference("toy.py:build")
    assert callable(load_build("toy.py:build"))


def test_nothing_is_imported_to_check_a_reference(write):
    write("toy.py", "raise SystemExit('imported')\ndef build(task): ...")
    split_reference("toy.py:build")
    write("ps_test_package/__init__.py", "raise SystemExit('imported')")
    write("ps_test_package/inner/toy.py", "import no_such_module\ndef build(task): ...")
    split_reference("ps_test_package.inner.toy:build")
    message = error_of(split_reference, "ps_test_package.inner.toy:biuld")
    assert message.startswith("'ps_test_package.inner.toy' has no 'biuld': did you mean 'build'?")


@pytest.mark.parametrize(
    "definition",
    ["def __getattr__(name): return len", "globals()['bu' + 'ild'] = len", "import os"],
)
def test_a_module_may_have_names_that_are_not_seen(write, definition):
    write("ps_test_module.py", definition)
    if definition == "import os":  # These are all.
        assert "has no 'build'" in error_of(split_reference, "ps_test_module:build")
    else:
        split_reference("ps_test_module:build")
    split_reference("os.path:join")  # Found in no folder of that name.


def test_a_notebook_is_no_module(write):
    write("study.ipynb", "{}")
    for reference in ("study.ipynb:build", "./study.ipynb:build"):
        assert "%%writefile model.py" in error_of(split_reference, reference)


@pytest.mark.parametrize("reference", ["", "toy.py", ":build", "toy.py:", "toy.py:not a name"])
def test_the_form_is_explained(reference):
    message = error_of(split_reference, reference)
    assert repr(reference) in message
    assert "expected MODULE:FUNCTION or FILE.py:FUNCTION, for example" in message


@pytest.mark.parametrize("call", [split_reference, load_build])
class TestBothSay:
    def test_that_the_file_does_not_exist(self, call, write):
        write("here.txt", "")
        message = error_of(call, "models/toy.py:build")
        assert message.startswith("model file 'models/toy.py' does not exist (looked in ")
        assert str(Path.cwd()) in message

    def test_that_a_directory_is_no_file(self, call, write):
        write("models/toy.py", "")
        assert "model file 'models' does not exist" in error_of(call, "models/:build")

    def test_what_the_file_defines_instead(self, call, write):
        write("toy.py", "import os\ndef train(task): ...\ndef _private(): ...\n")
        assert error_of(call, "toy.py:build") == "'toy.py' has no 'build'; it defines: os, train"

    def test_that_the_file_defines_nothing(self, call, write):
        write("toy.py", "")
        assert error_of(call, "toy.py:build") == "'toy.py' has no 'build'; it defines: nothing"

    def test_where_the_syntax_is_wrong(self, call, write):
        write("toy.py", "x = 1\ndef build(task:\n    pass\n")
        assert error_of(call, "toy.py:build").startswith("toy.py:2: ")

    def test_that_the_module_was_not_found(self, call, write):
        write("here.txt", "")
        message = error_of(call, "no_such_module.models:build")
        assert (
            "module 'no_such_module.models' was not found (there is no 'no_such_module')" in message
        )

    def test_that_a_submodule_was_not_found(self, call, write):
        write("ps_test_package/__init__.py", "")
        message = error_of(call, "ps_test_package.nothing:build")
        assert "module 'ps_test_package.nothing' was not found: is it installed, or in" in message


def test_a_name_that_is_hidden_until_the_import_is_looked_for_again(write):
    write("toy.py", "if False:\n    def build(task): ...\ndef train(task): ...\n")
    split_reference("toy.py:build")
    assert error_of(load_build, "toy.py:build") == "'toy.py' has no 'build'; it defines: train"


def test_a_name_that_is_no_function(write):
    write("toy.py", "build = 3")
    assert error_of(load_build, "toy.py:build") == "'toy.py:build' is a int, expected a function"


@pytest.mark.parametrize("reference", ["toy.py:build", "toy:build"])
def test_an_import_that_fails_names_the_error_and_the_line(write, reference):
    write("toy.py", "def build(task): ...\n\nopen('data.csv')\n")
    message = error_of(load_build, reference)
    target = reference.partition(":")[0]
    assert message.startswith(f"importing {target!r} failed: FileNotFoundError: ")
    assert message.endswith("toy.py:3)")
    assert "\n" not in message


def test_a_file_of_a_package_may_have_relative_imports(write):
    write("ps_test_project/__init__.py", "")
    write("ps_test_project/nets/__init__.py", "")
    write("ps_test_project/sizes.py", "WIDTH = 8")
    write("ps_test_project/nets/toy.py", "from ..sizes import WIDTH\ndef build(task): return WIDTH")
    assert load_build("ps_test_project/nets/toy.py:build")(None) == 8


def test_a_relative_import_without_a_package_is_an_error_of_the_model(write):
    write("toy.py", "from .sizes import WIDTH\ndef build(task): return WIDTH")
    message = error_of(load_build, "toy.py:build")
    assert message.startswith("importing 'toy.py' failed: ImportError: attempted relative import")
