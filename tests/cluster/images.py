"""Container images made without a daemon or a registry: archives that containerd imports."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from . import binaries

#: what every node has; nothing pulls them
PAUSE = "localhost/pause:1"
PYTHON = "localhost/python:1"
AGENT = "localhost/agent:1"
#: another one when archives are made otherwise than before
FORM = "3"
CHECKOUT = Path(__file__).parents[2]
#: what the agent's image is made of
SOURCES = ("pyproject.toml", "jupyter_gpu_platform", "cluster_agent")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pause() -> Path:
    program = binaries.pause()
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    return _image(PAUSE, [_layer("pause", [digest], lambda root: shutil.copy(program, root))], ["/pause"])


def python() -> Path:
    """A small Debian with Python and nothing of ours."""
    return _image(PYTHON, [_debian_layer()])


def agent() -> Path:
    """The cluster agent as its Containerfile makes it, from this checkout's wheel."""
    digest = hashlib.sha256()
    for source in SOURCES:
        at = CHECKOUT / source
        for path in sorted(at.rglob("*")) if at.is_dir() else [at]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.relative_to(CHECKOUT).as_posix().encode() + path.read_bytes())
    layer = _layer("agent", [digest.hexdigest()], _install)
    return _image(AGENT, [_debian_layer(), layer], ["python3", "-m", "jupyter_gpu_agent"], ["PYTHONPATH=/opt/agent"])


def _install(root: Path) -> None:
    """Install the wheel and what it needs, for the image's Python and not for this one."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", CHECKOUT], check=True)
        (wheel,) = Path(folder).iterdir()
        there = ["--python-version=3.11", "--only-binary=:all:", f"--target={root}/opt/agent"]
        subprocess.run([*pip, "install", *there, f"{wheel}[kubernetes]"], check=True)


def _debian_layer() -> Path:
    return _layer("python", ["1"], _debian)


def _debian(root: Path) -> None:
    line = ["debootstrap", "--variant=minbase", "--include=python3", "bookworm", str(root)]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    for path in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / path, ignore_errors=True)


def _layer(name: str, inputs: Iterable[str], fill: Callable[[Path], object]) -> Path:
    """Return the archive of one layer; it is made where it isn't in the cache yet, and takes an older one's place."""
    digest = hashlib.sha256("\n".join([*inputs, FORM]).encode()).hexdigest()[:12]
    layer = binaries.cache() / f"layer-{name}-{digest}.tar"
    if layer.exists():
        return layer
    layer.parent.mkdir(parents=True, exist_ok=True)
    older = list(layer.parent.glob(f"layer-{name}-*.tar"))
    root, building = (layer.with_name(f"{layer.name}.{os.getpid()}.{kind}") for kind in ("root", "making"))
    root.mkdir()
    try:
        fill(root)
        with tarfile.open(building, "w") as tar:
            tar.add(root, arcname=".")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    building.rename(layer)
    for path in older:
        path.unlink(missing_ok=True)
    return layer


def _image(tag: str, layers: Sequence[Path], entrypoint: Sequence[str] = (), env: Sequence[str] = ()) -> Path:
    """Return an image in the form that ``docker save`` has, beside its layers."""
    name = tag.rpartition("/")[2].replace(":", "-")
    inputs = [layer.name for layer in layers] + [*entrypoint, *env]
    digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()[:12]
    archive = layers[-1].with_name(f"image-{name}-{digest}.tar")
    if archive.exists():
        return archive
    older = list(archive.parent.glob(f"image-{name}-*.tar"))
    building = archive.with_name(f"{archive.name}.{os.getpid()}.making")
    names = [f"layer{number}.tar" for number in range(len(layers))]
    config = json.dumps(_config(layers, entrypoint, env)).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": names}]).encode()
    with tarfile.open(building, "w") as tar:
        for member, content in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for member, layer in zip(names, layers, strict=True):
            tar.add(layer, arcname=member)
    building.rename(archive)
    for path in older:
        path.unlink(missing_ok=True)
    return archive


def _config(layers: Sequence[Path], entrypoint: Sequence[str], env: Sequence[str]) -> Mapping[str, object]:
    digests = []
    for layer in layers:
        with layer.open("rb") as file:
            digests.append(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": [PATH, *env], "Entrypoint": list(entrypoint)},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created_by": "the tests of jupyter-gpu-platform"} for _ in layers],
    }
