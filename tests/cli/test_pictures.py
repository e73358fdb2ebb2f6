"""Pictures of a job's output as files: where they lie, what they are called, and that they never fill the disk."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import pytest

from jupyter_gpu_platform.client import pictures
from jupyter_gpu_platform.client.terminal import Terminal


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jupyter-gpu-platform" / "pictures"


def png(content: bytes) -> dict[str, str]:
    return {"image/png": base64.encodebytes(content).decode(), "text/plain": "<Figure>"}


def shown(data: dict) -> str:
    out = io.StringIO()
    Terminal(out, job="j1").show({"type": "display", "data": data, "attempt": 1, "cursor": "cc"})
    return out.getvalue()


def test_a_picture_is_a_private_file_named_for_its_job_and_place(cache: Path) -> None:
    path = cache / "j1-12.png"
    assert shown(png(b"x" * 100)) == f"<Figure> [image/png: {path}]\n"
    assert path.read_bytes() == b"x" * 100
    assert path.stat().st_mode & 0o777 == 0o600
    assert cache.stat().st_mode & 0o777 == 0o700


def test_the_same_picture_is_written_once(cache: Path) -> None:
    path = pictures.keep(png(b"one"), "j1", 1)
    first = path.stat()
    assert pictures.keep(png(b"one"), "j1", 1) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert [entry.name for entry in cache.iterdir()] == ["j1-1.png"]


def test_svg_is_text_and_other_kinds_have_their_endings() -> None:
    assert pictures.keep({"image/svg+xml": ["<svg>", "ä</svg>"]}, "j1", 1).read_text() == "<svg>ä</svg>"
    both = {"image/jpeg": base64.b64encode(b"j").decode(), "image/svg+xml": "<svg/>"}
    assert pictures.keep(both, "j1", 2).name == "j1-2.jpg"


@pytest.mark.parametrize("data", [{"image/png": "…"}, {"image/png": "abc"}])
def test_a_damaged_picture_is_a_note(data: dict, cache: Path) -> None:
    assert shown(data) == "[image/png, not kept: its data is damaged]\n"
    assert not cache.exists()


def test_a_picture_that_is_too_large_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LARGEST", 2**20)
    assert "not kept: it is larger than 1 MiB" in shown(png(b"x" * (2**20 + 1)))


def test_where_the_disk_takes_nothing_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "jupyter-gpu-platform").write_text("no directory")
    assert "j1-12.png: " in shown(png(b"x"))


def test_a_name_from_afar_leads_to_no_other_place() -> None:
    with pytest.raises(pictures.NotKept):
        pictures.keep(png(b"x"), "../../evil", 1)


@pytest.mark.parametrize(("limit", "value"), [("ALL", 250), ("COUNT", 3)])
def test_the_oldest_make_room(cache: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(pictures, limit, value)
    for number in range(1, 6):
        path = pictures.keep(png(b"%d" % number * 80), "j1", number)
        os.utime(path, (number, number))
    assert sorted(entry.name for entry in cache.iterdir()) == ["j1-3.png", "j1-4.png", "j1-5.png"]
