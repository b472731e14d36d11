"""Changes to a text, gathered in any order and applied at once."""

from __future__ import annotations


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
