"""Who the agent is to the control service: read from a private file, or got once in trade for a join token."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tornado.httpclient import AsyncHTTPClient, HTTPClientError

from jupyter_gpu_platform import errors, runtime


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """What the service answers to a join token, and what the private file holds."""

    agent_id: str
    credential: str
    cluster: str


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


async def join(url: str, token: str) -> Credential:
    """Trade a join token, which works once, for a credential of the agent's own.

    :raises GpuPlatformError: what the service answered, or `Unavailable` where it can't be reached.
    """
    body = msgspec.json.encode({"token": token})
    headers = {"Content-Type": "application/json"}
    try:
        answer = await AsyncHTTPClient().fetch(
            f"{url}/api/v1/agents/join", method="POST", headers=headers, body=body, request_timeout=20
        )
    except HTTPClientError as error:
        raise _refusal(error) from None
    except OSError as error:
        raise errors.Unavailable(f"{url} can't be reached: {error}", hint="Is the control service there?") from None
    return msgspec.json.decode(answer.body, type=Credential)


def _refusal(error: HTTPClientError) -> errors.GpuPlatformError:
    try:
        problem = msgspec.json.decode(error.response.body if error.response else b"")
        return errors.from_problem(problem["code"], problem["detail"], hint=problem.get("hint", ""))
    except (msgspec.DecodeError, KeyError, TypeError):
        return errors.Unavailable(f"the control service did not let this agent join: {error}", hint="Try again.")
