#!/usr/bin/env python3
"""Prints docs/original_api.md: every documented item of the original API, and its tests.

The items are read from the API's own documents in tests/data/seeds, the tests from their
`@pytest.mark.original_api("KEY")`, and the differences from docs/differences.md.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDS = ROOT / "tests/data/seeds"
DIFFERENCES = ROOT / "docs/differences.md"
TABLE = ROOT / "docs/original_api.md"

LEARN, TRAINING, PRUNING = (
    f"tf.contrib.{name}.train" for name in ("learn", "training", "model_pruning")
)
LOOPS = {LEARN: "000_*", TRAINING: "002_*", PRUNING: "004_*"}
NAMES = "003_*"


@dataclass(frozen=True)
class Item:
    """An item of a document: an argument, an error or a name.

    Attributes:
        key: Its key in tests. Of a documented error only the beginning: tests add the case.
        says: The document's own words, shortened.
    """

    key: str
    says: str


def document(pattern: str) -> str:
    """Returns the text of the one seed document that matches."""
    [path] = SEEDS.glob(pattern)
    return path.read_text()


def items_of_loop(function: str) -> Iterator[Item]:
    """Yields the arguments, the return value and the errors of a `train` function, in order."""
    text = document(LOOPS[function])
    for name, says in _bullets(text):
        if re.match(r"[A-Z]\w*Error$", name):
            yield Item(f"{function} raises {name}", says)
        else:
            yield Item(f"{function}({name})", says)
    yield Item(
        f"{function} returns",
        re.search(r"(?i)the (?:final loss value|value of the loss.*)", text)[0],
    )


def names_of_module() -> dict[str, str]:
    """Returns the names of `tf.train`, with `queue_runner`, each with its text in the document."""
    found = re.findall(
        r"^\[`(?:class )?(\w+)(?:\(\.\.\.\))?`\]\([^)]*\)(?: module)?:? ?(.*)$",
        document(NAMES),
        re.M,
    )
    return dict(found)


def all_items() -> list[Item]:
    """Returns every documented item."""
    loops = [item for function in LOOPS for item in items_of_loop(function)]
    return loops + [Item(f"tf.train.{name}", says) for name, says in names_of_module().items()]


def marked_tests() -> dict[str, list[str]]:
    """Returns, by key, the tests that are marked with it, as `file::test`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text())
        whole_module = [
            key for node in tree.body if isinstance(node, ast.Assign) for key in _keys(node)
        ]
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                keys = [key for decorator in node.decorator_list for key in _keys(decorator)]
                for key in dict.fromkeys([*whole_module, *keys]):
                    found[key].append(f"{path.relative_to(ROOT)}::{node.name}")
            elif isinstance(node, ast.Assign):
                # Parameters that carry marks, kept in a list of their own.
                for key in _keys(node):
                    found.setdefault(key, [f"{path.relative_to(ROOT)}"])
    return dict(found)


def tests_of(item: Item, marked: dict[str, list[str]]) -> list[str]:
    """Returns the tests that show an item."""
    keys = [key for key in marked if key == item.key or key.startswith(f"{item.key}: ")]
    return list(dict.fromkeys(test for key in keys for test in marked[key]))


def differing_names() -> set[str]:
    """Returns the names in the first column of docs/differences.md."""
    cells = re.findall(r"^\| ([^|]+) \|", DIFFERENCES.read_text(), re.M)
    return {name for cell in cells for name in re.findall(r"`([\w.()]+)`", cell)}


def table() -> str:
    """Returns the whole page."""
    marked, differing = marked_tests(), differing_names()
    lines = [
        "# The original API, item by item",
        "",
        "Written by `scripts/seed_table.py` from the original API's documents (`tests/data/seeds`)",
        "and the marks of the tests; a test fails when this page is out of date, or an item has no",
        'test. "Mended" items differ from the original: [differences.md](differences.md) says how',
        "and why. Quoted words are TensorFlow's, licensed under CC BY 4.0: see",
        "[their source](../tests/data/seeds/README.md).",
        "",
        "| item | the document says | state | shown by |",
        "|---|---|---|---|",
    ]
    for item in all_items():
        tests = tests_of(item, marked)
        state = (
            "missing" if not tests else "mended" if _is_in(item.key, differing) else "as documented"
        )
        lines.append(f"| `{item.key}` | {_shortened(item.says)} | {state} | {_links(tests)} |")
    return "\n".join(lines) + "\n"


def _is_in(key: str, differing: set[str]) -> bool:
    return key.split(" ")[0] in differing


def _links(tests: list[str]) -> str:
    shown = [
        f"[{test.rpartition('::')[2].removeprefix('test_')}](../{test.partition('::')[0]})"
        for test in tests
    ]
    more = f" and {len(shown) - 2} more" if len(shown) > 2 else ""
    return ", ".join(shown[:2]) + more


def _shortened(text: str, length: int = 90) -> str:
    text = re.sub(r"<[^>]*>|`", "", text).replace("|", "/").strip()
    return text if len(text) <= length else text[:length].rpartition(" ")[0] + " …"


def _bullets(text: str) -> list[tuple[str, str]]:
    """Returns `(name, text)` of the lists of arguments and errors, in both styles."""
    old = re.findall(r"^  • (\w+): (.*)$", text, re.M)
    return old or re.findall(r"^\* <b>`(\w+)`</b>: (.*)$", text, re.M)


def _keys(node: ast.AST) -> list[str]:
    """Returns the literal keys of every `pytest.mark.original_api(...)` below a node."""
    return [
        argument.value
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "original_api"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        TABLE.write_text(table())
    else:
        sys.stdout.write(table())
