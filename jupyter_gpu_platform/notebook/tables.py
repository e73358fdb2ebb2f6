"""Tables that are aligned text in a terminal and a table in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence

from ..client.describing import printable


class Table:
    """Rows under a head; the result of ``%gpu jobs`` and its like.

    :param empty: what to say where there are no rows.
    """

    def __init__(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str = "nothing") -> None:
        self.head = tuple(head)
        self.rows = [tuple(row) for row in rows]
        self._empty = empty

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return self._empty
        lines = [[printable(cell) for cell in row] for row in (tuple(title.upper() for title in self.head), *self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if not self.rows:
            return f"<p>{html.escape(self._empty)}</p>"
        head = "".join(f'<th style="text-align:left">{html.escape(title)}</th>' for title in self.head)
        body = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
