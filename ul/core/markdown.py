"""Markdown tables with padded columns, which also read well in a terminal."""

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, align_right: bool = False) -> str:
    """Return a Markdown table whose header is the first row."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    pad = str.rjust if align_right else str.ljust
    lines = ["| " + " | ".join(map(pad, row, widths)) + " |" for row in rows]
    rule = "-:" if align_right else "--"
    rules = "|" + "|".join("-" * w + rule for w in widths) + "|"
    return "\n".join([lines[0], rules, *lines[1:]])
