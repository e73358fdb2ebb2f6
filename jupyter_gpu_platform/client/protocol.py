"""The client without its I/O: which request a call is, what its answer means, and when a failed one is made again.

`sync` and `aio` send what this module builds, so that both speak the same protocol by construction. A `Call` is
repeated only where doing it twice is doing it once: reads, creates with an idempotency key, wishes such as cancel.
"""

from __future__ import annotations

import enum
import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

from .. import errors
from .._version import __version__
from ..model.jobs import Attempt, Job, JobSpec, ObjectRef, Phase
from ..runtime import RuntimeFile, release
from .transfers import Chunks

API = "/api/v1"
#: seconds for which a call that can't get through is tried again
PATIENCE = 30.0
#: seconds for which a cut stream tries to go on: a service that is being updated, a laptop that wakes up
STREAM_PATIENCE = 600.0
#: seconds between tries: the first and the longest, each multiplied by a random part
FIRST_DELAY, LONGEST_DELAY = 0.1, 3.0

T = TypeVar("T")
Record = dict[str, Any]
#: a resource that only administrators look at, as the service describes it
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a platform listens, and the token it takes."""

    url: str
    token: str = field(repr=False)
    #: set when it is this machine's own platform
    runtime: RuntimeFile | None = field(default=None, repr=False)

    @property
    def alive(self) -> bool:
        """False once its process is gone: the port may be another program's by now, so no token goes there."""
        return self.runtime is None or self.runtime.alive


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, and as whom it knows the caller."""

    version: str
    incarnation: str = ""
    user: str = ""
    role: str = ""
    local: bool = False
    fake_gpus: int = 0
    replica: str = ""
    started: float = 0.0


class JobPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs, newest first."""

    items: tuple[Job, ...]
    #: pass as ``after`` for the next page; None or empty on the last one
    next: str | None = None
    #: the change log's position at the moment of the page: follow `changes` from here and miss nothing
    log_position: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job, in words."""

    id: int
    job: str
    time: float
    code: str
    message: str
    attempt: int | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the change log."""

    id: int
    time: float
    kind: str
    object_id: str
    payload: Any = None


class OutputPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some records of a job's output, and where the next ones begin."""

    records: list[Record]
    cursor: str
    phase: str
    #: the job has ended and this page reaches the end of its output
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    decode: Callable[[bytes], T]
    params: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    #: sent piece by piece in the body's place
    upload: Chunks | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: sending it twice does what sending it once does
    repeatable: bool = True

    @property
    def patience(self) -> float:
        """Seconds for which it is tried again; an upload alone may take longer than other calls are tried."""
        return PATIENCE if self.upload is None else STREAM_PATIENCE

    @property
    def deletes(self) -> bool:
        return self.method == "DELETE"


class Trouble(enum.Enum):
    #: the service answered, with an error
    REFUSED = enum.auto()
    #: nothing was sent: no connection could be made
    UNSENT = enum.auto()
    #: it was sent, and whether it was done is not known
    CUT = enum.auto()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request did not get its answer."""

    trouble: Trouble
    error: errors.GpuPlatformError
    #: seconds that the service asked to wait
    retry_after: float | None = None


class Patience:
    """Decides whether and when a failed request is made again. Time is the caller's."""

    def __init__(self, now: float, *, repeatable: bool = True, limit: float = PATIENCE) -> None:
        self._repeatable = repeatable
        self._limit = limit
        self._started = now
        self.failures = 0

    def restart(self, now: float) -> None:
        """Begin anew: something got through."""
        self._started, self.failures = now, 0

    def waited(self, now: float) -> float:
        """Seconds since the first try."""
        return now - self._started

    def delay(self, failure: Failure, now: float) -> float | None:
        """Return the seconds to wait before the next try; None to give up and raise the failure's error."""
        self.failures += 1
        if not self._worth(failure):
            return None
        # S311: jitter needs no secrecy.
        pause = min(FIRST_DELAY * 2 ** (self.failures - 1), LONGEST_DELAY) * random.uniform(0.5, 1)  # noqa: S311 -- see above
        # Behind the moment that the service named, not at it: else all who were refused come back together.
        pause += failure.retry_after or 0.0
        return pause if now + pause - self._started <= self._limit else None

    def _worth(self, failure: Failure) -> bool:
        match failure.trouble:
            case Trouble.UNSENT:
                return True
            case Trouble.CUT:
                return self._repeatable
            case _:
                if isinstance(failure.error, errors.TooManyRequests):
                    return True
                # Subclasses (a full disk, a store that is too new) need a person: saying so at once helps more.
                return type(failure.error) is errors.Unavailable and self._repeatable


def refused(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Read an error answer: a problem document, or whatever a proxy in between made of it."""
    try:
        retry_after = max(float(headers.get("retry-after", "")), 0.0)
    except ValueError:
        retry_after = None
    return Failure(Trouble.REFUSED, _error(status, headers.get("content-type", ""), body), retry_after)


def _error(status: int, content_type: str, body: bytes) -> errors.GpuPlatformError:
    if content_type.startswith("application/problem+json"):
        try:
            problem = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            problem = {}
        if problem:
            message = str(problem.get("detail") or problem.get("title") or f"the service answered {status}")
            return errors.from_problem(str(problem.get("code", "")), message, hint=str(problem.get("hint") or ""))
    kinds: dict[int, type[errors.GpuPlatformError]] = {
        400: errors.InvalidRequest,
        401: errors.Unauthenticated,
        403: errors.Forbidden,
        404: errors.NotFound,
        405: errors.MethodNotAllowed,
        409: errors.Conflict,
        410: errors.Gone,
        413: errors.BodyTooLarge,
        429: errors.TooManyRequests,
        502: errors.Unavailable,
        503: errors.Unavailable,
        504: errors.Unavailable,
    }
    text = " ".join(body[:200].decode(errors="replace").split())
    hint = "This answer is not of our making: is the URL right, and is there a proxy in between?"
    return kinds.get(status, errors.InternalError)(f"the service answered {status}: {text}", hint=hint)


def refused_unknown(failure: Failure) -> bool:
    """Whether the service refused a field or a parameter that it doesn't know: it may be older than this client."""
    words = ("unknown field", "unknown query parameter")
    return isinstance(failure.error, errors.InvalidRequest) and any(word in failure.error.message for word in words)


def refused_by_older(error: errors.GpuPlatformError, version: str) -> errors.GpuPlatformError:
    """Say of such a refusal that the service is of the older release *version*; give it back where it isn't."""
    if release(version) >= release(__version__):
        return error
    return type(error)(
        f"the service is of release {version} and doesn't know all that this installation, {__version__}, asks for: "
        f"{error.message}",
        hint=f"Have the service updated, or install its release here: pip install jupyter-gpu-platform=={version}",
    )


def undecodable(endpoint: Endpoint, cause: msgspec.DecodeError) -> errors.GpuPlatformError:
    """Say that an answer of status 2xx is not what the protocol promises."""
    return errors.InternalError(
        f"{endpoint.url} gave an answer that this release can't read: {cause}",
        hint="Is the URL that of a GPU platform? If so, bring this installation and the service to the same release.",
    )


def request_headers(endpoint: Endpoint, call: Call[Any]) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {endpoint.token}", "Accept": "application/json, application/x-ndjson"}
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    return headers | dict(call.headers)


# --- the calls -------------------------------------------------------------------------------------------------

_decode_job = msgspec.json.Decoder(Job).decode
_decode_page = msgspec.json.Decoder(JobPage).decode
_decode_status = msgspec.json.Decoder(Status).decode
_decode_document = msgspec.json.Decoder(Document).decode


class _Jobs(msgspec.Struct):
    jobs: tuple[Job, ...]


class _Attempts(msgspec.Struct):
    items: tuple[Attempt, ...]


class _Events(msgspec.Struct):
    items: tuple[Event, ...]


class _Documents(msgspec.Struct):
    items: list[Document]


def _nothing(_: bytes) -> None:
    return None


def _path(*parts: str | int) -> str:
    return "/".join([API, *(quote(str(part), safe="") for part in parts)])


def _params(**values: object) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in values.items() if value not in (None, "", ())]


def _documents(body: bytes) -> list[Document]:
    return msgspec.json.decode(body, type=_Documents).items


def status() -> Call[Status]:
    return Call(method="GET", path=_path("status"), decode=_decode_status)


def submit(spec: JobSpec, key: str | None) -> Call[Job]:
    return Call(
        method="POST",
        path=_path("jobs"),
        decode=_decode_job,
        body=msgspec.json.encode(spec),
        headers={"Idempotency-Key": key or uuid.uuid4().hex},
    )


def submit_many(specs: Iterable[JobSpec], key: str | None) -> Call[tuple[Job, ...]]:
    return Call(
        method="POST",
        path=_path("job-batches"),
        decode=lambda body: msgspec.json.decode(body, type=_Jobs).jobs,
        body=msgspec.json.encode({"jobs": tuple(specs)}),
        headers={"Idempotency-Key": key or uuid.uuid4().hex},
    )


def job(job_id: str) -> Call[Job]:
    return Call(method="GET", path=_path("jobs", job_id), decode=_decode_job)


def jobs(
    *,
    limit: int | None = None,
    after: str = "",
    phases: Iterable[Phase | str] = (),
    project: str = "",
    owner: str = "",
    cluster: str = "",
    name: str = "",
    labels: Mapping[str, str] | None = None,
) -> Call[JobPage]:
    params = _params(limit=limit, after=after, project=project, owner=owner, cluster=cluster, name=name)
    params += [("phase", str(phase)) for phase in phases]
    params += [("label", f"{key}={value}") for key, value in (labels or {}).items()]
    return Call(method="GET", path=_path("jobs"), decode=_decode_page, params=params)


def act(job_id: str, action: str) -> Call[Job]:
    # An interrupt or a retry done twice is one too many; a cancel or an abandon is not.
    repeatable = action in ("cancel", "abandon")
    return Call(method="POST", path=_path("jobs", job_id, action), decode=_decode_job, repeatable=repeatable)


def delete(job_id: str) -> Call[None]:
    return Call(method="DELETE", path=_path("jobs", job_id), decode=_nothing)


def attempts(job_id: str) -> Call[tuple[Attempt, ...]]:
    return Call(
        method="GET",
        path=_path("jobs", job_id, "attempts"),
        decode=lambda body: msgspec.json.decode(body, type=_Attempts).items,
    )


def events(job_id: str, *, after: int = 0, limit: int | None = None) -> Call[tuple[Event, ...]]:
    return Call(
        method="GET",
        path=_path("jobs", job_id, "events"),
        decode=lambda body: msgspec.json.decode(body, type=_Events).items,
        params=_params(after=after or None, limit=limit),
    )


def answer(job_id: str, request: int, value: str) -> Call[None]:
    body = msgspec.json.encode({"request": request, "value": value})
    return Call(method="POST", path=_path("jobs", job_id, "input"), decode=_nothing, body=body)


def look_for_object(digest: str) -> Call[None]:
    return Call(method="HEAD", path=_path("objects", digest), decode=_nothing)


def put_object(digest: str, size: int, chunks: Chunks) -> Call[ObjectRef]:
    return Call(
        method="PUT",
        path=_path("objects", digest),
        decode=lambda body: msgspec.json.decode(body, type=ObjectRef),
        upload=chunks,
        headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
    )


def get_object(digest: str) -> Call[None]:
    return Call(method="GET", path=_path("objects", digest), decode=_nothing)


def output(job_id: str, *, after: str = "", limit: int | None = None) -> Call[OutputPage]:
    return Call(
        method="GET",
        path=_path("jobs", job_id, "output"),
        decode=_decode_output,
        params=_params(after=after, limit=limit, follow=0),
    )


def _decode_output(body: bytes) -> OutputPage:
    lines = [msgspec.json.decode(line, type=Record) for line in body.splitlines() if line]
    if not lines or lines[-1].get("type") != "eof":
        raise msgspec.DecodeError("the output ends without its last line")
    end = lines.pop()
    return OutputPage(records=lines, cursor=end["cursor"], phase=end["phase"], ended=end["ended"])


def download(job_id: str, form: str) -> Call[bytes]:
    return Call(method="GET", path=_path("jobs", job_id, "download"), decode=bytes, params=[("format", form)])


def shutdown(*, when_idle: bool) -> Call[None]:
    body = msgspec.json.encode({"when_idle": when_idle})
    return Call(method="POST", path=_path("shutdown"), decode=_nothing, body=body, repeatable=False)


def documents(*parts: str) -> Call[list[Document]]:
    """List clusters, agents, tokens…"""
    return Call(method="GET", path=_path(*parts), decode=_documents)


def document(*parts: str) -> Call[Document]:
    return Call(method="GET", path=_path(*parts), decode=_decode_document)


def create(*parts: str, **values: object) -> Call[Document]:
    """Make something that is named by its maker or random: done twice, it is refused or makes two."""
    body = msgspec.json.encode({name: value for name, value in values.items() if value is not None})
    return Call(method="POST", path=_path(*parts), decode=_decode_document, body=body, repeatable=False)


def change(*parts: str, **values: object) -> Call[Document]:
    return Call(method="PATCH", path=_path(*parts), decode=_decode_document, body=msgspec.json.encode(values))


def remove(*parts: str | int) -> Call[None]:
    return Call(method="DELETE", path=_path(*parts), decode=_nothing)


def output_stream(job_id: str, after: str) -> Call[None]:
    params = _params(after=after, follow=1)
    return Call(method="GET", path=_path("jobs", job_id, "output"), decode=_nothing, params=params)


def change_stream(after: int, *, follow: bool) -> Call[None]:
    return Call(method="GET", path=_path("changes"), decode=_nothing, params=_params(after=after, follow=int(follow)))
