"""The original API's own documents, compared with this package."""

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

import paramserve.train
from paramserve.contrib import learn, model_pruning, training

SCRIPT = Path(__file__).parents[1] / "scripts/seed_table.py"
_spec = importlib.util.spec_from_file_location("seed_table", SCRIPT)
seed_table = importlib.util.module_from_spec(_spec)
sys.modules["seed_table"] = seed_table  # Its dataclass looks itself up there.
_spec.loader.exec_module(seed_table)

TRAIN = {
    seed_table.LEARN: learn.train,
    seed_table.TRAINING: training.train,
    seed_table.PRUNING: model_pruning.train,
}
# The document of the oldest of them has no signature: its words, as the original had them.
LEARN_DEFAULTS = dict.fromkeys(
    ("global_step_tensor", "init_op", "init_feed_dict", "init_fn", "feed_fn", "steps", "monitors")
) | {
    "log_every_steps": 10,
    "supervisor_is_chief": True,
    "supervisor_master": "",
    "supervisor_save_model_secs": 600,
    "keep_checkpoint_max": 5,
    "supervisor_save_summaries_steps": 100,
    "fail_on_nan_loss": True,
    "max_steps": None,
}


def documented_arguments(function):
    """Name to default as source text; None where there is no default."""
    text = seed_table.document(seed_table.LOOPS[function])
    call = re.search(rf"^{re.escape(function)}\((.*?)^\)", text, re.M | re.S)
    if call is None:
        names = [
            item.key.partition("(")[2].rstrip(")")
            for item in seed_table.items_of_loop(function)
            if "(" in item.key
        ]
        return {n: repr(LEARN_DEFAULTS[n]) if n in LEARN_DEFAULTS else None for n in names}
    arguments = ast.parse(f"def f({call[1]}): pass").body[0].args
    names = [argument.arg for argument in arguments.args]
    defaults = [ast.unparse(default) for default in arguments.defaults]
    return dict(zip(names, [None] * (len(names) - len(defaults)) + defaults, strict=True))


@pytest.mark.parametrize("function", TRAIN)
def test_every_argument_exists_with_its_documented_default(function):
    ours = inspect.signature(TRAIN[function]).parameters
    original = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    documented = documented_arguments(function)
    assert [p.name for p in original] == list(documented)
    for parameter in original:
        default = documented[parameter.name]
        if default is None:
            assert parameter.default is parameter.empty, parameter.name
        elif default == "_USE_DEFAULT":
            assert repr(parameter.default) == "_USE_DEFAULT", parameter.name
        elif default == "train_step":
            assert parameter.default is model_pruning.learning.train_step
        else:
            assert parameter.default == ast.literal_eval(default), parameter.name
    # Arguments beyond the document are keyword-only and optional.
    more = [p for p in ours.values() if p.kind is not p.POSITIONAL_OR_KEYWORD]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in more)


@pytest.mark.parametrize("function", TRAIN)
def test_every_argument_is_explained(function):
    for name in inspect.signature(TRAIN[function]).parameters:
        assert re.search(rf"^ +{name}: ", TRAIN[function].__doc__, re.M), name
    assert "Returns:" in TRAIN[function].__doc__
    assert "Raises:" in TRAIN[function].__doc__


def test_the_older_document_of_learn_train_promises_the_same():
    words = re.sub(r"\W+", " ", seed_table.document("001_*"))
    for name in documented_arguments(seed_table.LEARN):
        assert f" {name} " in words


def test_every_name_of_the_module_is_there_and_documented():
    names = seed_table.names_of_module()
    assert len(names) == 114
    assert set(paramserve.train.__all__) == set(names)
    for name in names:
        ours = getattr(paramserve.train, name)
        # A protocol message explains itself by its fields.
        fields = getattr(ours, "DESCRIPTOR", None)
        assert inspect.getdoc(ours) or fields.fields, name


def test_every_documented_item_is_shown_by_a_test():
    marked = seed_table.marked_tests()
    items = seed_table.all_items()
    assert [item.key for item in items if not seed_table.tests_of(item, marked)] == []
    # Every mark of a test is in a document.
    known = {item.key for item in items}
    assert {key for key in marked if key.partition(": ")[0] not in known} == set()


@pytest.mark.parametrize("function", TRAIN)
def test_every_documented_error_has_a_case_of_its_own(function):
    marked = seed_table.marked_tests()
    documented = [i.key for i in seed_table.items_of_loop(function) if " raises " in i.key]
    for error in set(documented):
        cases = [key for key in marked if key == error or key.startswith(f"{error}: ")]
        assert len(cases) >= documented.count(error), error


def test_the_page_is_up_to_date():
    assert seed_table.TABLE.read_text() == seed_table.table(), (
        "run `.venv/bin/python scripts/seed_table.py --write`"
    )
