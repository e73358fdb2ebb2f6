"""Who the agent is to the control service: read from a private file, or got once in trade for a join token."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from jupyter_gpu_platform import errors, runtime

if TYPE_CHECKING:
    import httpx

#: seconds for a service to answer
PATIENCE = 20.0


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What the service answers to a join token, and what the private file holds."""

    agent_id: str
    credential: str
    cluster: str
    #: `fingerprint` of the join token that it was got for
    joined_by: str = ""


def fingerprint(token: str) -> str:
    """Name a token without telling it."""
    return hashlib.sha256(token.encode()).hexdigest()


def load(path: Path) -> Credential | None:
    """Read the private file; None where there is none yet."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credential)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise errors.InvalidRequest(
            f"{path} can't be read as an agent's credential: {error}", hint="Remove it and join again."
        ) from None


def save(path: Path, credential: Credential) -> None:
    """Write the private file, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    runtime.write_private(path, msgspec.json.encode(credential))


async def join(url: str, token: str, replaces: str = "") -> Credential:
    """Trade a join token, which works once, for a credential of the agent's own.

    :param replaces: the credential that the agent had, which is revoked.
    :raises GpuPlatformError: what the service answered, or `Unavailable` where it can't be reached.
    """
    import httpx  # it takes memory that an agent which has joined never needs

    body = {"token": token, **({"replaces": replaces} if replaces else {})}
    try:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            answer = await client.post(f"{url}/api/v1/agents/join", json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise errors.Unavailable(f"{url} can't be reached: {error}", hint="Is the control service there?") from None
    if answer.status_code != 201:
        raise _refusal(answer)
    joined = msgspec.json.decode(answer.content, type=Credential)
    return msgspec.structs.replace(joined, joined_by=fingerprint(token))


def _refusal(answer: httpx.Response) -> errors.GpuPlatformError:
    try:
        problem = msgspec.json.decode(answer.content)
        return errors.from_problem(problem["code"], problem["detail"], hint=problem.get("hint", ""))
    except (msgspec.DecodeError, KeyError, TypeError):
        said = f"{answer.status_code} {answer.reason_phrase}"
        return errors.Unavailable(f"the control service did not let this agent join: {said}", hint="Try again.")
