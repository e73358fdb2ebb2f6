"""Values in the worker: loaded into the shell before the user's code, and packed into a file after it."""

from __future__ import annotations

import ast
import signal
from typing import Any, Iterable

#: the last expression's value of a cell is kept up to here (bytes)
LARGEST_RESULT = 16 * 2**20
#: the largest object that the service takes (bytes)
LARGEST = 8 * 2**30
#: Objects of these packages live with their front end or their canvas. A figure that is loaded elsewhere is even shown
#: there once more.
_UNKEPT = frozenset(["IPython", "ipykernel", "ipywidgets", "matplotlib", "traitlets"])
#: stands for "no value", where None is one
NOTHING: Any = object()


class Unstartable(Exception):
    """The user's code can't begin; the message says why and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def load(path: str, shell: Any) -> dict[str, Any]:
    """Put the values of kind "in" that the file *path* holds into the shell's namespace; return the others by name.

    Its functions get that namespace as their globals.

    :raises Unstartable: ``python_mismatch`` or ``values_failed``.
    """
    from . import values

    try:
        unpacked = values.Unpacked(path, shell.namespace)
        unpacked.add_path()
        shell.name_cells(unpacked.header.get("cells") or {})
        entries = unpacked.load_entries()
    except values.CannotLoad as error:
        raise Unstartable(error.code, "%s. %s" % (error.why, error.hint)) from error
    shell.namespace.update((entry["name"], value) for entry, value in entries if entry["kind"] == "in")
    return {entry["name"]: value for entry, value in entries if entry["kind"] != "in"}


def deletions(code: str) -> set[str]:
    """List the names that *code* deletes somewhere."""
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError):
        return set()
    targets = [target for node in nodes if isinstance(node, ast.Delete) for target in node.targets]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _items(value: Any) -> Iterable[Any]:
    """List the value and, of a small collection, what is in it."""
    yield value
    if isinstance(value, (list, tuple)):
        yield from value[:100]
    elif isinstance(value, dict):
        yield from list(value.values())[:100]
    elif str(getattr(value, "dtype", "")) == "object" and hasattr(value, "flat"):
        yield from value.flat[:100]


def is_kept(value: Any) -> bool:
    """Say whether the value of a cell's last expression is worth sending back."""
    try:
        kinds = {kind for item in _items(value) for kind in type(item).__mro__}
    except Exception:  # noqa: BLE001 - the value's own code; it must not fail a cell that has succeeded
        return False
    return not any(str(kind.__module__).partition(".")[0] in _UNKEPT for kind in kinds)


class Keeping:
    """Packs what is to be kept, and notes what can't be."""

    def __init__(self, namespace: dict[str, Any], encoding: str) -> None:
        self._namespace = namespace
        self._encoding = encoding
        self._packer: Any = None
        self.entries: list[dict[str, Any]] = []
        self.failed: list[dict[str, Any]] = []

    def fail(self, name: str, kind: str, code: str, message: str) -> None:
        self.failed.append({"name": name, "kind": kind, "code": code, "message": message})

    def add(self, name: str, kind: str, value: Any, limit: int = LARGEST) -> None:
        from . import values

        try:
            if limit < LARGEST:  # into the air first: what is too large must not be in the file
                values.Packer(self._namespace, limit=limit, encoding=self._encoding).add(name, value, kind)
            if self._packer is None:
                self._packer = values.Packer(self._namespace, limit=LARGEST, encoding=self._encoding)
            entry = self._packer.add(name, value, kind)
        except values.CannotPack as error:
            hint = error.hint
            if error.code == "too_large":
                hint = "Write it to a file" if limit == LARGEST else "Give it a name, and that to --out"
            self.fail(name, kind, error.code, "%s. %s" % (error.why, hint))
            return
        self.entries.append({key: entry[key] for key in ("name", "kind", "type", "summary", "size")})

    def write(self, path: str) -> None:
        if not self.entries:
            return
        try:
            self._packer.write(path)
        except OSError as error:
            self.drop("not_kept", "the job's disk can't hold it: %s" % error)

    def drop(self, code: str, message: str) -> None:
        """Count everything as failed."""
        for entry in self.entries:
            self.fail(entry["name"], entry["kind"], code, message)
        self.entries = []


def keep(source: dict[str, Any], shell: Any, known: set[str], path: str) -> dict[str, Any] | None:
    """Pack what *source* asks to keep into the file *path*; return the message about it, None when there is nothing.

    :param known: the names that the shell had before the user's code.
    """
    encoding = source.get("encoding") or "pickle"
    keeping = Keeping(shell.namespace, encoding)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if source["type"] == "function":
            _keep_call(keeping, shell)
        else:
            _keep_names(keeping, source, shell, known)
            _keep_result(keeping, shell)
        keeping.write(path)
    except KeyboardInterrupt:
        keeping.drop("not_kept", "interrupted before it was kept")
        done = {failed["name"] for failed in keeping.failed}
        for name in source.get("out") or ():
            if name not in done:
                keeping.fail(name, "out", "not_kept", "interrupted before it was kept")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not keeping.entries and not keeping.failed:
        return None
    return {"encoding": encoding, "entries": keeping.entries, "failed": keeping.failed}


def _keep_call(keeping: Keeping, shell: Any) -> None:
    if shell.error is not None:
        keeping.add("exception", "exception", shell.error)
    elif shell.result is not NOTHING:
        keeping.add("result", "result", shell.result)


def _keep_names(keeping: Keeping, source: dict[str, Any], shell: Any, known: set[str]) -> None:
    absent = [name for name in source.get("out") or () if name not in shell.namespace]
    deleted = deletions(shell.transformed(source["code"])) | known if absent else set()
    for name in source.get("out") or ():
        if name not in absent:
            keeping.add(name, "out", shell.namespace[name])
        elif name in deleted:
            keeping.fail(name, "out", "deleted", "the cell deleted it")
        else:
            keeping.fail(name, "out", "not_assigned", "the cell never assigned it")


def _keep_result(keeping: Keeping, shell: Any) -> None:
    if shell.result is NOTHING or shell.result is None:
        return
    if is_kept(shell.result):
        keeping.add("_", "result", shell.result, LARGEST_RESULT)
    else:
        said = "a %s is shown where it was made, and is not sent back" % type(shell.result).__name__
        keeping.fail("_", "result", "not_picklable", said)
