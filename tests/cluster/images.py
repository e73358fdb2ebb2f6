"""Container images made without a daemon or a registry: archives that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from . import binaries

#: what every node has; nothing pulls them
PAUSE = "localhost/pause:1"
PYTHON = "localhost/python:1"
#: another one when archives are made otherwise than before
FORM = "2"


def pause() -> Path:
    program = binaries.pause()
    made_of = [hashlib.sha256(program.read_bytes()).hexdigest()]
    return _made("pause", made_of, lambda root: shutil.copy(program, root), entrypoint=["/pause"])


def python() -> Path:
    """A small Debian with Python and nothing of ours."""
    return _made("python", ["1"], _debian)


def _debian(root: Path) -> None:
    line = ["debootstrap", "--variant=minbase", "--include=python3", "bookworm", str(root)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    for path in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / path, ignore_errors=True)


def _made(name: str, inputs: Iterable[str], fill: Callable[[Path], object], entrypoint: Sequence[str] = ()) -> Path:
    """Return the archive of an image; it is made where it isn't in the cache yet."""
    digest = hashlib.sha256("\n".join([*inputs, FORM]).encode()).hexdigest()[:12]
    archive = binaries.cache() / f"image-{name}-{digest}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    root = archive.with_name(f"{archive.name}.{os.getpid()}.root")
    root.mkdir()
    try:
        fill(root)
        _pack(root, f"localhost/{name}:1", archive, entrypoint)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return archive


def _pack(root: Path, tag: str, archive: Path, entrypoint: Sequence[str]) -> None:
    """Write *root* as an image of one layer, in the form that ``docker save`` has."""
    building = archive.with_name(f"{archive.name}.{os.getpid()}")
    layer = building.with_suffix(".layer")
    with tarfile.open(layer, "w") as tar:
        tar.add(root, arcname=".")
    with layer.open("rb") as file:
        layer_digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": list(entrypoint),
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created_by": "the tests of jupyter-gpu-platform"}],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(building, "w") as tar:
        for name, content in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        tar.add(layer, arcname="layer.tar")
    layer.unlink()
    building.rename(archive)
