"""Kubernetes' own programs: found where ``KUBEBUILDER_ASSETS`` says, or built once and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

VERSION = "1.36.3"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kubelet", "helm")
#: what else is needed, with the package of Debian or Ubuntu that has it
PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "ip": "iproute2",
    "unshare": "util-linux",
}
CNI = Path("/usr/lib/cni")
SOURCE = Path(__file__).parent / "programs"
_FLAGS = "-s -w" + "".join(
    f" -X k8s.io/component-base/version.{name}={value}"
    for name, value in (("gitVersion", f"v{VERSION}"), ("gitMajor", "1"), ("gitMinor", VERSION.split(".")[1]))
)


def cache() -> Path:
    """Where what is built stays, for the next checkout to find."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jupyter-gpu-platform"


def missing() -> str:
    """Say what this machine lacks for a cluster, and what provides it; empty where it lacks nothing."""
    if os.geteuid() != 0:
        return "a node needs root"
    packages = sorted({package for program, package in PACKAGES.items() if not shutil.which(program)})
    if not (CNI / "bridge").exists():
        packages.append("containernetworking-plugins")
    if packages:
        return f"apt-get install {' '.join(packages)}"
    if _given() is None and not _built().exists() and not shutil.which("go"):
        return f"Kubernetes {VERSION} is built with Go 1.26, or found where KUBEBUILDER_ASSETS says"
    return ""


def find() -> Path:
    """Return the folder that holds `PROGRAMS` and ``pause``; builds them first, in some 6 minutes, where they aren't.

    :raises subprocess.CalledProcessError: they can't be built.
    """
    built = _built()
    if not (built / "pause").exists():
        _build(built)
    given = _given()
    if given is None:
        return built
    for name in PROGRAMS:
        if not (given / name).exists():
            raise FileNotFoundError(f"KUBEBUILDER_ASSETS={given} has no {name}")
    return given


def pause() -> Path:
    """Return the program that does nothing."""
    return _built() / "pause"


def _given() -> Path | None:
    given = os.environ.get("KUBEBUILDER_ASSETS")
    return Path(given) if given else None


def _built() -> Path:
    digest = hashlib.sha256(_FLAGS.encode())
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix in (".go", ".mod", ".sum"):
            digest.update(path.read_bytes())
    return cache() / f"kubernetes-{VERSION}-{digest.hexdigest()[:12]}"


def _build(built: Path) -> None:
    building = built.with_name(f"{built.name}.{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    _compile(building / "pause", "./pause")
    if _given() is None:
        print(f"building Kubernetes {VERSION} once, for some minutes, into {built}", flush=True)
        _compile(building / "kubernetes", ".")
        for name in PROGRAMS:
            (building / name).symlink_to("kubernetes")
    shutil.rmtree(built, ignore_errors=True)
    building.rename(built)


def _compile(program: Path, package: str) -> None:
    line = ["go", "build", "-trimpath", "-tags=providerless,netgo,osusergo", f"-ldflags={_FLAGS}", f"-o={program}"]
    subprocess.run([*line, package], cwd=SOURCE, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
