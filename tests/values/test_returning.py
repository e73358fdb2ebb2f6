"""What a job kept comes back into the notebook."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from jupyter_gpu_platform import errors
from jupyter_gpu_platform.model.jobs import Cell, Job, JobSpec
from jupyter_gpu_platform.notebook.returning import LazyValue, take
from jupyter_gpu_platform.runner.values import Packer


class Store:
    """Keeps objects in a folder, as the service does for their owner, and counts downloads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads = 0

    def record(self, values: list[tuple[str, str, Any]], failed: list[dict[str, str]] | None = None) -> dict[str, Any]:
        packer = Packer({}, limit=2**30)
        entries = [packer.add(name, value, kind) for name, kind, value in values]
        packer.write(self.folder / packer.digest())
        found = {"digest": packer.digest(), "size": packer.size} if values else None
        return {"type": "values", "object": found, "encoding": "pickle", "entries": entries, "failed": failed or []}

    def get_object(self, digest: str, path: Path) -> None:
        self.downloads += 1
        if not (self.folder / digest).exists():
            raise errors.NotFound(f"There is no object {digest[:12]}")
        shutil.copy(self.folder / digest, path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def job() -> Job:
    spec = JobSpec(source=Cell(code="1"))
    return Job(id="j1", spec=spec, owner="ada", project="default", organisation="default", created=0)


def test_names_and_result_come_back(store: Store, job: Job) -> None:
    shared = [1]
    record = store.record([("a", "out", shared), ("b", "out", {"a": shared}), ("_", "result", 5)])
    here: dict[str, Any] = {"a": 0}
    returned = take(store, job, record, here, user="ada")
    assert here["b"]["a"] is here["a"] == [1]
    assert (returned.result, returned.has_result, returned.warnings) == (5, True, [])
    assert "_" not in here


def test_an_exception_comes_back_and_is_not_raised(store: Store, job: Job) -> None:
    returned = take(store, job, store.record([("exception", "exception", KeyError("k"))]), {}, user="ada")
    assert isinstance(returned.exception, KeyError)
    assert not returned.has_result


def test_values_of_another_users_job_are_not_even_downloaded(store: Store, job: Job) -> None:
    with pytest.raises(errors.Forbidden, match="belongs to ada"):
        take(store, job, store.record([("a", "out", 1)]), {}, user="eve")
    assert store.downloads == 0


def test_large_values_wait_until_they_are_asked_for(store: Store, job: Job) -> None:
    shared = list(range(1000))
    here: dict[str, Any] = {}
    take(store, job, store.record([("a", "out", shared), ("b", "out", [shared])]), here, user="ada", eager=100)
    assert store.downloads == 0
    assert isinstance(here["a"], LazyValue)
    assert "a: list, 1,000 items" in repr(here["a"])
    assert "a.get()" in repr(here["a"])
    assert here["b"].get()[0] is here["a"].get()
    assert store.downloads == 1


def test_a_lazy_value_of_a_deleted_job_says_so(store: Store, job: Job) -> None:
    here: dict[str, Any] = {}
    record = store.record([("a", "out", [1])])
    take(store, job, record, here, user="ada", eager=0)
    (store.folder / record["object"]["digest"]).unlink()
    with pytest.raises(errors.NotFound):
        here["a"].get()


def refuse() -> None:
    raise RuntimeError("no such device")


class OnlyThere:
    def __reduce__(self) -> Any:
        return refuse, ()


def test_one_value_that_cannot_be_made_here_is_told(store: Store, job: Job) -> None:
    record = store.record([("a", "out", 1), ("bad", "out", OnlyThere())])
    here: dict[str, Any] = {"bad": "as before"}
    returned = take(store, job, record, here, user="ada")
    assert here == {"a": 1, "bad": "as before"}
    assert "`bad` can't be loaded: RuntimeError: no such device" in returned.warnings[0]
    take(store, job, record, here, user="ada", eager=0)
    with pytest.raises(errors.InvalidRequest, match="no such device"):
        here["bad"].get()


def test_what_failed_is_told_apart(store: Store, job: Job) -> None:
    failed = [
        {"name": "a", "kind": "out", "code": "not_assigned", "message": "m"},
        {"name": "b", "kind": "out", "code": "deleted", "message": "m"},
        {"name": "c", "kind": "out", "code": "not_picklable", "message": "`c` is a lock"},
        {"name": "_", "kind": "result", "code": "too_large", "message": "it is 20 MiB"},
    ]
    here: dict[str, Any] = {"b": 1}
    assert take(store, job, store.record([], failed), here, user="ada").warnings == [
        "`a` was not brought back: the cell never assigned it",
        "`b` was not brought back: the cell deleted it",
        "`c` was not brought back: `c` is a lock",
    ]  # and nothing of the last result: it was shown
    assert here == {"b": 1}
