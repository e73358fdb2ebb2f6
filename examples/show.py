"""Run a notebook in a real kernel and show each cell's outputs in the terminal.

    python examples/show.py examples/quickstart.ipynb

Text shows as it is, a table as its text with a note of its type, an image as the path it was saved to, an error
with its traceback. Ends with 1 when a cell fails that isn't tagged ``raises-exception``.
"""

from __future__ import annotations

import argparse
import base64
import html
import itertools
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_SUFFIX = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg"}


class Terminal:
    """Writes cells and their outputs; without colours where nobody would see them."""

    def __init__(self, images: Path, *, colours: bool) -> None:
        self._images = images
        self._colours = colours
        self._saved = 0

    def write(self, text: str) -> None:
        sys.stdout.write(text if self._colours else re.sub(r"\x1b\[[0-9;]*m", "", text))
        sys.stdout.flush()

    def cell(self, cell: Any, index: int, widgets: dict[str, Any] | None = None) -> None:
        """Show a cell and its outputs; called as each has run.

        :param widgets: the states of the kernel's widgets, by their ids.
        """
        if cell.cell_type == "markdown":
            self.write(f"\n{_DIM}{cell.source}{_PLAIN}\n")
            return
        self.write(f"\n{_BOLD}In [{cell.execution_count or index}]:{_PLAIN}\n{_indented(cell.source)}\n\n")
        # Text comes in pieces; a progress bar is made of many.
        for is_text, outputs in itertools.groupby(cell.outputs, lambda output: output.output_type == "stream"):
            if is_text:
                self._text("".join(output.text for output in outputs))
                continue
            for output in outputs:
                if output.output_type == "error":
                    self.write("\n".join(output.traceback) + "\n")
                else:
                    self._data(output.data, widgets or {})

    def _text(self, text: str) -> None:
        # A terminal would show of a progress bar what is left of it after its last carriage return.
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        self.write("\n".join(lines) + ("\n" if lines[-1] else ""))

    def _data(self, data: dict[str, Any], widgets: dict[str, Any]) -> None:
        for mime, suffix in _SUFFIX.items():
            if mime in data:
                self._saved += 1
                path = self._images / f"image-{self._saved}{suffix}"
                path.write_bytes(data[mime].encode() if suffix == ".svg" else base64.b64decode(data[mime]))
                self.write(f"[{mime}, saved to {path}]\n")
                return
        view = data.get("application/vnd.jupyter.widget-view+json")
        if view and view["model_id"] in widgets:
            self.write(f"{drawn(view['model_id'], widgets)}\n")
            return
        self.write(f"{data.get('text/plain', '')}\n")
        rich = [mime for mime in data if mime != "text/plain"]
        if rich:
            self.write(f"{_DIM}[shown in a notebook as {rich[0]}]{_PLAIN}\n")


def drawn(model: str, widgets: dict[str, Any]) -> str:
    """Return how the widget *model* looks, as far as text can show it.

    :param widgets: the states of all widgets, by their ids.
    """
    state = widgets[model]
    children = [drawn(child.removeprefix("IPY_MODEL_"), widgets) for child in state.get("children", ())]
    if children:
        return " ".join(filter(None, map(str.strip, children)))
    if "bar_style" in state:
        return "█" * round(10 * state["value"] / (state["max"] or 1))
    text = str(state.get("value", ""))
    return f"{state['description']} {text}" if state.get("description") else html.unescape(text)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def show(path: Path, terminal: Terminal, *, timeout: int) -> bool:
    """Run the notebook at *path*, show it cell by cell, and say whether all went well."""
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call] # nbformat has no types
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name=notebook.metadata.get("kernelspec", {}).get("name", "python3"),
        # Only errors: a kernel warns that its loopback sockets are not encrypted.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            try:
                client.execute_cell(cell, index)
            except CellExecutionError:
                terminal.cell(cell, index, client.widget_state)
                return False
            terminal.cell(cell, index, client.widget_state)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a notebook and show each cell's outputs in the terminal.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--images", type=Path, help="where images are saved (default: a new directory)")
    parser.add_argument("--timeout", type=int, default=120, help="seconds a cell may take (default: 120)")
    options = parser.parse_args(argv)
    images = options.images or Path(tempfile.mkdtemp(prefix="notebook-images-"))
    images.mkdir(parents=True, exist_ok=True)
    terminal = Terminal(images, colours=sys.stdout.isatty())
    return 0 if show(options.notebook.resolve(), terminal, timeout=options.timeout) else 1


if __name__ == "__main__":
    sys.exit(main())
