"""TensorFlow's and Keras' private names stand in one module, and in the subclasses listed here."""

import ast
from pathlib import Path

import tensorflow as tf

ROOT = Path(__file__).parents[1]
INTERNALS = "tf_internals.py"
OTHER_FOLDERS = {".venv", "build", "deploy", "dist", "docs", "examples", "scripts", "tests"}
PRIVATE_MODULES = ("tensorflow.python", "tensorflow.core", "keras.src")

# Names of Python, Ray and named tuples.
OTHER_NAMES = {"_exit", "_getframe", "_global_node", "_private", "_replace", "_run_exitfuncs"}

# Private names that subclasses of TensorFlow's own classes use, by file.
INHERITED = {
    # The methods that `Optimizer` documents for new kinds of optimizers, and Adam's values.
    "train/adam.py": {
        *("_apply_dense", "_apply_sparse", "_resource_apply_dense", "_resource_apply_sparse"),
        *("_create_slots", "_finish", "_get_beta_accumulators", "_get_non_slot_variable"),
        *("_beta1", "_beta1_t", "_beta2", "_beta2_t", "_epsilon_t", "_lr_t"),
        *("_non_slot_dict", "_use_locking"),
    },
    # An error of a prepared run names no op; a session's own runs go through this as well.
    "cluster/session.py": {"_do_call"},
    # `close` and the end of `with` lead to one method, which waits before it closes the session.
    "train/monitored_session.py": {"_close_internal", "_coordinated_creator", "_tf_sess"},
    "train/monitored_training_session.py": {"_close_internal"},
    # The constructor makes a session manager, of arguments that it keeps.
    "train/supervisor.py": {
        *("_init_session_manager", "_local_init_op", "_local_init_run_options"),
        *("_ready_op", "_recovery_wait_secs"),
    },
    # The hook opens its writer in `begin`, and learns there of steps that are made on a device.
    "train/hooks.py": {"_set_steps_per_run", "_summary_writer"},
}


def read_modules():
    paths = {path.relative_to(ROOT): path for path in sorted(ROOT.rglob("*.py"))}
    return {
        str(name): ast.parse(path.read_text())
        for name, path in paths.items()
        if name.parts[0] not in OTHER_FOLDERS and not name.stem.endswith(("_pb2", "_pb2_grpc"))
    }


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def is_of_this_object(value):
    """Returns whether an expression is `self`, `cls` or `super()`."""
    called = value.func if isinstance(value, ast.Call) else value
    return isinstance(called, ast.Name) and called.id in ("self", "cls", "super")


def private_names(tree):
    """Yields the private names that a module uses, each with the object that it is used on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.value, node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
            of, name = node.args[:2]
            if isinstance(name, ast.Constant) and is_private(name.value):
                yield of, name.value


def own_names(tree):
    """Yields the names that a module defines, also as attributes of its own objects."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


MODULES = read_modules()
OWN_NAMES = {name for tree in MODULES.values() for name in own_names(tree)}
TRAIN = tf.compat.v1.train
TENSORFLOWS_NAMES = {name for each in dir(TRAIN) for name in dir(getattr(TRAIN, each))}


def private_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [getattr(node, "module", None) or "", *(each.name for each in node.names)]
            yield from (name for name in names if name.startswith(PRIVATE_MODULES))


def inherited(tree):
    """The private names of other classes that a module's own classes use or override."""
    used = {name for of, name in private_names(tree) if is_of_this_object(of)}
    overridden = {
        name
        for of, name in private_names(tree)
        if isinstance(of, ast.Call) and is_of_this_object(of)
    }
    return (used - OWN_NAMES) | (overridden & TENSORFLOWS_NAMES)


def test_only_one_module_uses_private_names_of_tensorflow():
    found = {
        file: {name for of, name in private_names(tree) if not is_of_this_object(of)} - OTHER_NAMES
        | set(private_modules(tree))
        for file, tree in MODULES.items()
        if file != INTERNALS
    }
    assert {file: names for file, names in found.items() if names} == {}


def test_subclasses_use_only_what_is_listed_here():
    found = {file: inherited(tree) for file, tree in MODULES.items()}
    assert {file: names for file, names in found.items() if names} == INHERITED


def test_a_private_name_is_found_however_it_is_used():
    code = "import keras.src\nop._a()\ngetattr(op, '_b', None)\nself._c\nfrom keras.src.x import y"
    tree = ast.parse(code)
    used = {name: is_of_this_object(of) for of, name in private_names(tree)}
    assert used == {"_a": False, "_b": False, "_c": True}
    assert list(private_modules(tree)) == ["keras.src", "keras.src.x"]


def test_each_use_says_why():
    documented = [node for node in MODULES[INTERNALS].body if isinstance(node, ast.FunctionDef)]
    assert documented
    assert all(ast.get_docstring(node) for node in documented)
