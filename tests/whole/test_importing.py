"""What a kernel pays for: the package alone imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"httpx", "msgspec", "tornado", "sqlalchemy", "IPython", "asyncio", "cloudpickle", "traitlets"}


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = "import sys, jupyter_gpu_platform; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd=".")
    assert out.returncode == 0, out.stderr
    assert not HEAVY & {name.partition(".")[0] for name in out.stdout.split()}


@pytest.mark.parametrize("package", ["client", "notebook.extension", "cli.main", "sdk.commands"])
def test_what_the_light_install_imports_needs_no_service(package: str) -> None:
    code = f"import sys, jupyter_gpu_platform.{package}; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tornado", "sqlalchemy", "alembic"} & {name.partition(".")[0] for name in out.stdout.split()}


def test_the_sdk_needs_no_ipython() -> None:
    code = "import sys, jupyter_gpu_platform as gpu; [getattr(gpu, name) for name in gpu.__all__]; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"IPython", "traitlets", "ipykernel"} & {name.partition(".")[0] for name in out.stdout.split()}
