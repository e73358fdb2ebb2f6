"""What an agent must not forget, kept in one Secret of its own namespace: it needs no disk."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from jupyter_gpu_platform import errors

from .api import Api


class Vault:
    """Copies an agent's private files from a Secret when it starts, and back when they change.

    :param secret: ``namespace/name`` of a Secret that exists; empty: the folder itself lasts.
    """

    def __init__(self, api: Api, secret: str, folder: Path) -> None:
        namespace, _, name = secret.partition("/")
        self._api = api
        self._folder = folder
        self._path = f"/api/v1/namespaces/{namespace}/secrets/{name}" if secret else ""

    async def fetch(self) -> None:
        """Write what the Secret holds into the folder.

        :raises InvalidRequest: there is no such Secret.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._path:
            return
        found = await self._api.get(self._path)
        if found is None:
            raise errors.InvalidRequest(
                f"the agent's own Secret {self._path} is missing", hint="The chart makes it: install it again."
            )
        for name, content in (found.get("data") or {}).items():
            self._write(name, base64.b64decode(content))

    async def store(self, *names: str) -> None:
        """Bring files of the folder into the Secret."""
        if self._path:
            content = {name: base64.b64encode((self._folder / name).read_bytes()).decode() for name in names}
            await self._api.patch(self._path, {"data": content})

    def _write(self, name: str, content: bytes) -> None:
        # Only names, no paths: the Secret is the agent's own, yet another may have written it.
        with open(os.open(self._folder / Path(name).name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 -- Path has no mode
            file.write(content)
