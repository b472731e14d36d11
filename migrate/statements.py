"""Positions of statements in the text, and changes to it, applied at once."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst
from libcst import metadata as meta


class Edits:
    """Replacements in a text; every byte that no replacement covers stays as it is.

    Offsets are bytes of the UTF-8 text, as the parser gives them.
    """

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self._edits: list[tuple[int, int, str]] = []

    def replace(self, start: int, end: int, new: str) -> None:
        """Puts `new` where [start, end) was; twice the same is once."""
        if (start, end, new) not in self._edits:
            self._edits.append((start, end, new))

    def replace_lines(self, start: int, end: int, new: str) -> None:
        """Puts `new` where the whole lines were that [start, end) is on."""
        self.replace(self.line_start(start), self.line_end(end), new)

    def line_start(self, offset: int) -> int:
        """Returns the offset at which the line of an offset begins."""
        return self.text.rfind(b"\n", 0, offset) + 1

    def line_end(self, offset: int) -> int:
        """Returns the offset at which the next line begins."""
        end = self.text.find(b"\n", offset)
        return len(self.text) if end < 0 else end + 1

    def indentation(self, offset: int) -> str:
        """Returns the white space before an offset on its line."""
        line = self.text[self.line_start(offset) : offset]
        return line[: len(line) - len(line.lstrip())].decode()

    def applied(self) -> str:
        """Returns the text with all replacements made."""
        parts = []
        reached = 0
        for start, end, new in sorted(self._edits, key=lambda edit: edit[:2]):
            assert start >= reached, "two changes overlap"
            parts += [self.text[reached:start].decode(), new]
            reached = end
        return "".join([*parts, self.text[reached:].decode()])


class Statements:
    """The nodes and statements of one module, with their replacement in its text."""

    def __init__(self, wrapper: meta.MetadataWrapper, edits: Edits) -> None:
        self._edits = edits
        self._module = wrapper.module
        self._newline = wrapper.module.default_newline
        self._spans = wrapper.resolve(meta.ByteSpanPositionProvider)
        self._parents = wrapper.resolve(meta.ParentNodeProvider)
        self._dropped: dict[cst.CSTNode, cst.CSTNode] = {}

    def start(self, node: cst.CSTNode) -> int:
        """Returns the offset of a node in the text."""
        return int(self._spans[node].start)

    def _end(self, node: cst.CSTNode) -> int:
        return self.start(node) + int(self._spans[node].length)

    def replace(self, node: cst.CSTNode, text: str) -> None:
        """Puts a text in the place of a node."""
        self._edits.replace(self.start(node), self._end(node), text)

    def replace_statement(self, node: cst.BaseSmallStatement, statements: Sequence[str]) -> None:
        """Puts statements in the place of one; if there are none, its line goes with it."""
        line = self._parents[node]
        alone = isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1
        if alone and not statements:
            self._dropped[line] = self._parents[line]
        else:
            indentation = self._edits.indentation(self.start(node))
            separator = f"{self._newline}{indentation}" if alone else "; "
            self.replace(node, separator.join(statements or ["pass"]))

    def drop_all(self) -> None:
        """Takes out the lines that went; a block that would be left empty keeps a `pass`."""
        for block in set(self._dropped.values()):
            lines = [line for line, owner in self._dropped.items() if owner is block]
            if isinstance(block, cst.IndentedBlock) and len(lines) == len(block.body):
                self.replace(lines.pop(0), "pass")
            for line in lines:
                self._edits.replace_lines(self.start(line), self._end(line), "")

    def is_at_top(self, node: cst.CSTNode) -> bool:
        """Returns whether a statement runs when the module is imported."""
        while node is not self._module:
            if isinstance(node, cst.FunctionDef | cst.Lambda | cst.ClassDef):
                return False
            node = self._parents[node]
        return True

    def insert_before(self, node: cst.CSTNode, lines: Sequence[str]) -> None:
        """Puts lines before a statement; at the top level, before its compound statement."""
        at = self._edits.line_start(self.start(self._anchor(node)))
        indentation = self._edits.indentation(self.start(self._anchor(node)))
        text = "".join(f"{indentation}{line}{self._newline}" for line in lines)
        if text:
            self._edits.replace(at, at, text)

    def insert_after_imports(self, node: cst.CSTNode, line: str) -> None:
        """Puts a line after a statement and the imports that follow it."""
        anchor = self._anchor(node)
        body: Sequence[cst.CSTNode] = getattr(self._parents[anchor], "body", ())
        last = anchor
        for following in body[list(body).index(anchor) + 1 :]:
            if not _is_import(following):
                break
            last = following
        at = self._edits.line_end(self._end(last))
        text = f"{self._newline}{self._edits.indentation(self.start(anchor))}{line}{self._newline}"
        complete = self._edits.text[:at].endswith(b"\n")
        self._edits.replace(at, at, text if complete else f"{self._newline}{text}")

    def _anchor(self, node: cst.CSTNode) -> cst.CSTNode:
        """Returns the statement of a block that a line may be put before or after."""
        at_top = self.is_at_top(node)
        while True:
            parent = self._parents[node]
            if isinstance(parent, cst.Module):
                return node
            if isinstance(parent, cst.IndentedBlock) and not at_top:
                return node
            node = parent


def _is_import(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleStatementLine) and all(
        isinstance(each, cst.Import | cst.ImportFrom) for each in node.body
    )
