"""The reason of an error in one line: its text, and the places in the user's code.

A TensorFlow error has pages of text, and the first line is a preamble. It names the op that failed;
the graph knows where that op was made.
"""

from __future__ import annotations

import logging
import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import JobFailed, ParamserveError

log = logging.getLogger(__name__)

# One line may be long, but not pages.
MOST_CHARS = 1000

_OP_NOTE = "op '"
_NODE = re.compile(r"(?:\{\{function_node ([^}]+)\}\}\s*)?\{\{node ([^}]+)\}\}")
_FRAME = re.compile(r'^\s*File "([^"]+)", line (\d+)', re.M)
_IN_DATASET = re.compile(r"user-defined function passed to|\[\[IteratorGetNext")
_AUTOGRAPH = "in user code:"
_CALLBACK = re.compile(r"\s*(.*?)\nTraceback \(most recent call last\):\n(.*)", re.S)
_KERAS = re.compile(
    r"Exception encountered when calling[^\n]*\n(.*?)(?:\nArguments received by|\Z)", re.S
)
# Text around the reason in a TensorFlow error, in the order in which it is removed.
_AROUND = tuple(
    re.compile(pattern, re.S | re.M)
    for pattern in (
        r"\A.*?Graph execution error:\n+",
        r"\ARestoring from checkpoint failed\..*?Original error:\s*",
        r"^Detected at node .*?^Node: [^\n]*\n",
        r"^=+\n",
        r"^\d+ root error\(s\) found\.\n",
        r"^(\s*\(\d+\) )?([A-Z_]+: )?From /job:[^\n]*\n",
        r"^\s*\(\d+\) [A-Z_]+: ",
        r"^(\t \[\[|Additional GRPC error information|Original stack trace for ).*",
        r"\{\{function_node [^}]*\}\}\s*",
        r"Error in user-defined function passed to \w+:\d+ transformation with iterator: \S+: ",
        r"\x1b\[[0-9;]*m",
    )
)

_ROOT = Path(__file__).parent
_NOT_OURS = ("examples", "tests", "benchmarks")
_STANDARD = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib")})
_INSTALLED = re.compile(r"/(?:site|dist)-packages/")
# Installed, and certainly not the user's model.
_BELOW_MODELS = re.compile(
    r"/(?:site|dist)-packages/"
    r"(?:tensorflow|keras|tf_keras|tf_slim|numpy|paramserve|typer|click|grpc|ray)/"
)


def reason_of(error: BaseException) -> str:
    """Returns an error's message in one line, or its type if it has none."""
    return _parse(error)[0] or type(error).__name__


def describe(error: BaseException) -> str:
    """Describes an error of the user's code in one line: type, reason, and places in that code.

    For a TensorFlow error, the places are the failed op and the line that made it. For an error in
    a Python function that the graph calls, also the line that raised it.
    """
    if isinstance(error, ParamserveError):
        return str(error)
    said, raised = _parse(error)
    places = [f"raised at {raised}"] if raised else []
    places += getattr(error, "__notes__", ())
    if not places and getattr(error, "op", None) is not None:
        places = [_describe_op(error.op)]  # type: ignore[attr-defined]
    if not places and (place := _innermost(_frames_of(error))):
        places = [place]
    kind = f"{type(error).__name__}: "
    text = said if raised or said.startswith(kind) else f"{kind}{said}"
    return text + (f" ({'; '.join(places)})" if places else "")


def as_failure(
    what: str, error: Exception, kind: type[ParamserveError] = JobFailed
) -> ParamserveError:
    """Turns an error of the user's code into one that ends a process, and logs its whole text.

    Args:
        what: The failed action, for example "training failed".
        error: The reason; an error of ours is returned unchanged.
        kind: Type of the result.
    """
    if isinstance(error, ParamserveError):
        return error
    log.error("%s", what, exc_info=error)
    return kind(f"{what}: {describe(error)}")


def note_op(error: BaseException, graph: Any) -> None:
    """Adds to an error of a session the failed op, and the line of the user's code that made it.

    Args:
        error: The error of a run; a second call changes nothing.
        graph: The `tf.Graph` that was run.
    """
    if any(note.startswith(_OP_NOTE) for note in getattr(error, "__notes__", ())):
        return
    # The session drops the function's name from the text that it raises.
    for text in (_text(error.__context__), _text(error)):
        if found := _NODE.search(text):
            is_inner = found[1] is not None or _IN_DATASET.search(text) is not None
            error.add_note(_describe_node(graph, found[2], found[1], is_inner))
            return


def _text(error: BaseException | None) -> str:
    return str(getattr(error, "message", None) or error or "")


def _parse(error: BaseException) -> tuple[str, str]:
    """Returns the error's message, and the place in a Python function of the graph, if any."""
    text, raised = _text(error), ""
    if text.startswith(_AUTOGRAPH):  # A traceback, and below it the error.
        raised = _innermost(_frames_in(text))
        text = text.rstrip().rpartition("\n\n")[2]
    for pattern in _AROUND:
        text = pattern.sub("", text)
    if keras := _KERAS.match(text):
        text = keras[1]
    if callback := _CALLBACK.match(text):
        text, raised = callback[1], _innermost(_frames_in(callback[2]))
    said = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return said if len(said) <= MOST_CHARS else f"{said[:MOST_CHARS]} ...", raised


def _describe_node(graph: Any, node: str, function: str | None, is_inner: bool) -> str:
    """Says where a node was made.

    Args:
        graph: The graph that was run.
        node: The node's name there, or in a function of it.
        function: The function's name, if it is known.
        is_inner: Whether the node is in a function.
    """
    if not is_inner:
        try:
            return _describe_op(graph.get_operation_by_name(node))
        except KeyError:
            pass  # The op is in a function that the message does not name.
    from .tf_internals import functions_of  # TensorFlow is not loaded without need.

    functions = functions_of(graph)
    chosen = [functions[function]] if function and function in functions else functions.values()
    places = sorted({_innermost(_frames_in_function(each, node)) for each in chosen} - {""})
    return f"{_OP_NOTE}{node}'" + (f", made at {' or '.join(places)}" if places else "")


def _describe_op(op: Any) -> str:
    """Names an op and the line that made it; for a gradient, the line of the model."""
    from .tf_internals import original_op

    made = op
    while made is not None:
        if place := _innermost((frame.filename, frame.lineno) for frame in made.traceback):
            of_model = f" for '{made.name}'" if made is not op else ""
            return f"{_OP_NOTE}{op.name}'{of_model}, made at {place}"
        made = original_op(made)
    return f"{_OP_NOTE}{op.name}'"


def _frames_in_function(function: Any, node: str) -> list[tuple[str, int]]:
    if not hasattr(function, "graph_debug_info"):
        return []  # Of a kind that keeps no traces.
    traces = function.graph_debug_info
    if (number := traces.name_to_trace_id.get(node)) is None:
        return []
    frames = [traces.frames_by_id[each] for each in traces.traces_by_id[number].frame_id]
    return [(traces.files[frame.file_index], frame.line) for frame in frames]


def _frames_of(error: BaseException) -> list[tuple[str, int]]:
    return [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]


def _frames_in(text: str) -> list[tuple[str, int]]:
    return [(name, int(line)) for name, line in _FRAME.findall(text)]


def _innermost(frames: Iterable[tuple[str, int]]) -> str:
    """Returns the innermost place in the user's code; empty if there is none."""
    known = [frame for frame in frames if not _is_below_models(frame[0])]
    users = [frame for frame in known if not _INSTALLED.search(frame[0])] or known
    return f"{users[-1][0]}:{users[-1][1]}" if users else ""


def _is_below_models(name: str) -> bool:
    """Returns whether a file is of this package, of TensorFlow or of Python itself."""
    if _INSTALLED.search(name):
        return _BELOW_MODELS.search(name) is not None
    if name.startswith(("<", *_STANDARD)) or "__autograph_generated_file" in name:
        return True
    path = Path(name)
    return path.is_relative_to(_ROOT) and path.relative_to(_ROOT).parts[0] not in _NOT_OURS
