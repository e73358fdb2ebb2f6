"""Notebooks of the cells, executed by nbclient or papermill: here as they are, there under the magic."""

from __future__ import annotations

import ast
import concurrent.futures
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from .cells import Cell
from .kernels import FORGET, REMEMBER
from .transcripts import Tree, normalised, tree_differences

PATIENCE = 100
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def written(cells: Iterable[Cell], *, there: bool) -> NotebookNode:
    """Write a notebook that runs *cells*; each compared one has metadata that names its cell."""
    found = [
        new_code_cell("%load_ext jupyter_gpu_platform"),
        new_code_cell("__import__('os').getpid(), __import__('os').getcwd()"),
    ]
    found.append(new_code_cell(REMEMBER))
    for cell in cells:
        steps = (cell.before, cell.there if there else cell.here, cell.after)
        found += [new_code_cell(code, metadata={"golden": cell.name}) for code in steps if code]
        found.append(new_code_cell(FORGET))
    return new_notebook(cells=found, metadata=KERNEL)


@dataclass
class Executed:
    """A notebook with its outputs."""

    notebook: NotebookNode

    @property
    def own(self) -> dict[str, str]:
        pid, directory = ast.literal_eval(self.notebook.cells[1].outputs[0].data["text/plain"])
        return {f"ipykernel_{pid}": "ipykernel_<pid>", directory: "<directory>"}

    def tree(self, cell: Cell) -> Tree:
        """The outputs of a cell and those around it, as messages."""
        mine = [found for found in self.notebook.cells if found.metadata.get("golden") == cell.name]
        messages = [_message(output) for found in mine for output in found.outputs]
        counts = [found.execution_count for found in mine]
        return normalised({"messages": messages, "reply": {"counts": counts}}, self.own, cell.marks)

    def widgets(self, marks: frozenset[str]) -> Tree:
        """The state of all widgets, in the order in which they were made, stored for a page without a kernel."""
        state = self.notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
        models = [[model, kept] for model, kept in state["state"].items()]
        return normalised({"messages": [], "reply": {**state, "state": models}}, self.own, marks)


def _message(output: NotebookNode) -> dict[str, Any]:
    content = {name: value for name, value in output.items() if name != "output_type"}
    return {"type": output.output_type, "content": content, "metadata": {}}


@dataclass
class Pair:
    here: Executed
    there: Executed

    def differences(self, cell: Cell) -> list[str]:
        return tree_differences(self.here.tree(cell), self.there.tree(cell))


def execute_both(execute: Callable[[NotebookNode, Path], NotebookNode], cells: list[Cell], home: Path) -> Pair:
    """Execute the two notebooks side by side, each in a directory of its own."""

    def run(there: bool) -> Executed:
        directory = home / ("there" if there else "here")
        directory.mkdir()
        notebook = written(cells, there=there)
        nbformat.validate(notebook)
        return Executed(execute(notebook, directory))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return Pair(*pool.map(run, (False, True)))
