"""The tables of the docs that are made from the code: the service's figures, its limits, and how long things are kept.

    python docs/tables.py            say which pages are behind
    python docs/tables.py --write    bring them up to date

A table stands in its page between ``<!-- table: NAME -->`` and ``<!-- end of table -->``.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from traitlets.config import Configurable

from jupyter_gpu_platform.control.limits import Limits
from jupyter_gpu_platform.control.retention import KEPT, Retention
from jupyter_gpu_platform.control.server import Server, Settings

DOCS = Path(__file__).resolve().parent
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
_UNITS = ("timestamp_seconds", "seconds", "bytes", "rows")


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


async def _served() -> list[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        server = await Server.open(
            Settings(
                database_url=f"sqlite:///{at / 'control.db'}",
                segments_url=(at / "segments").as_uri(),
                objects_url=(at / "objects").as_uri(),
            )
        )
        try:
            return sorted(set(_described(server)))
        finally:
            await server.close()


def _described(server: Server) -> Iterable[tuple[str, ...]]:
    registry = server.services.metrics.registry
    for collector in list(registry._collector_to_names):
        for metric in collector.collect():
            labels = getattr(collector, "_labelnames", ()) or getattr(metric, "_labelnames", ())
            name = metric.name + ("_total" if metric.type == "counter" else "")
            unit = next((unit for unit in _UNITS if metric.name.endswith(unit)), "number")
            unit = "seconds since 1970" if unit == "timestamp_seconds" else unit
            yield f"`{name}`", metric.type, unit, ", ".join(f"`{label}`" for label in labels), metric.documentation


def figures() -> str:
    """Return the table of all that ``/metrics`` shows."""
    return _rows(("name", "kind", "unit", "labels", "what it says"), asyncio.run(_served()))


def limits() -> str:
    """Return the table of all limits."""
    return _rows(("`c.Limits.` …", "default", "what it does"), _settings(Limits))


def retention() -> str:
    """Return the table of what says how long things are kept."""
    named = {f"`{name}`": f"`--keep-{name.replace('_', '-')}`" for name in KEPT}
    rows = ((named.get(name, name), *rest) for name, *rest in _settings(Retention))
    return _rows(("option, or `c.Retention.` …", "default", "what it does"), rows)


def _settings(part: type[Configurable]) -> Iterable[tuple[str, ...]]:
    for name, trait in part.class_traits(config=True).items():
        if name in part.class_own_traits():
            yield f"`{name}`", f"{trait.default_value:.12g}", _plain(str(trait.help))


def _plain(text: str) -> str:
    """Leave the default out: it has a column of its own."""
    return re.sub(r" \(default: [^)]*\)", "", text)


TABLES: dict[str, Callable[[], str]] = {"figures": figures, "limits": limits, "retention": retention}


def renewed(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return _TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def main() -> int:
    behind = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text()
        new = renewed(text)
        if new != text:
            behind.append(page.name)
            if "--write" in sys.argv:
                page.write_text(new)
    print("\n".join(behind) or "All tables are up to date.")  # noqa: T201 - a program
    return int(bool(behind) and "--write" not in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
