"""Runs attempts as Kubernetes Jobs of one pod each, and adopts those that an earlier agent started.

Nothing is kept here that the cluster doesn't know: what exists is listed when the agent starts, then watched. For each
attempt one task looks at its Job and pod whenever either changes, and brings it to its reported end. Whatever is half
made is made whole: the service says again what it wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from jupyter_gpu_platform.errors import InvalidRequest
from jupyter_gpu_platform.model.jobs import JobSpec, Reason
from jupyter_gpu_platform.model.lifecycle import Report
from jupyter_gpu_platform.model.resources import Capacity
from jupyter_gpu_platform.wire.messages import Desired, Owned, Started

from ..executors import AgentCore, AttemptKey, ExecutorSettings
from ..link_server import LinkServer
from . import explaining, manifests, nodes
from .api import Api, Mirrored, Object, Refused
from .ending import NOTHING_SEEN, Seen, seen, tell_end, unseen
from .identity import Identity, in_folder
from .settings import KubernetesSettings
from .vault import Vault

log = logging.getLogger(__name__)

#: seconds between looks at an attempt of which nothing was heard
LOOK = 10.0
#: seconds that a pod has beyond its grace to end by itself, before it is deleted
PATIENCE = 15.0
#: seconds between two tellings of what the cluster has
CAPACITY_EVERY = 5.0
#: seconds between tries of what failed, at most
AGAIN_AT_MOST = 30.0


@dataclass
class _Run:
    """One attempt, as far as the cluster knows it."""

    key: AttemptKey
    namespace: str
    #: what the service asked for, as long as its code may still have to be started
    desired: Desired | None = None
    job: Object | None = None
    pods: dict[str, Object] = field(default_factory=dict)
    #: the pod as it was seen last, even when it is gone
    last: Object | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    #: the service knows how it ended
    reported: bool = False
    #: when it was to stop, by the loop's clock; and how long it has for that
    stopping: float | None = None
    grace: float = 0.0
    told: Reason | None = None
    #: how far its text has come in
    seen: Seen = NOTHING_SEEN
    refusal: Reason | None = None

    @property
    def pod(self) -> Object | None:
        """The pod that counts: one that has run, before any that was made after it."""
        ran = [pod for pod in self.pods.values() if explaining.started(pod)]
        return next(iter(ran or self.pods.values()), None)


class KubernetesExecutor:
    """The `jupyter_gpu_agent.executors.Executor` of a Kubernetes cluster."""

    def __init__(self, core: AgentCore, settings: ExecutorSettings) -> None:
        self._core = core
        self._settings = KubernetesSettings.read(settings.options)
        self._state_dir = settings.state_dir
        self._runs: dict[AttemptKey, _Run] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._capacity = Capacity()
        self._has_runner: set[str] = set()

    # --- up and down

    async def start(self) -> None:
        self._api = Api(await _client(self._settings))
        self._vault = Vault(self._api, self._settings.state_secret, self._state_dir)
        await self._vault.fetch()
        self._identity = await asyncio.to_thread(in_folder, self._state_dir)
        await self._vault.store(*Identity.NAMES)
        self._link = LinkServer(
            self._core,
            self._identity.link_key,
            self._on_reported,
            self._identity.tls(),
            self._on_records,
            self._explain_end,
        )
        mine = {"labelSelector": manifests.selector(self._identity.name)}
        self._mirrors = []
        for namespace in self._settings.namespaces():
            jobs, pods = f"/apis/batch/v1/namespaces/{namespace}/jobs", f"/api/v1/namespaces/{namespace}/pods"
            # Pods first: a Job that has ended is not to be taken for one whose pod is gone.
            self._mirrors.append(Mirrored(self._api, pods, self._pod_changed, self._core.failed))
            self._mirrors.append(Mirrored(self._api, jobs, self._job_changed, self._core.failed, **mine))
        self._nodes = Mirrored(self._api, "/api/v1/nodes", _unheard, self._core.failed)
        self._others = [mirror for mirror in self._mirrors if mirror.path.endswith("/pods")]
        if self._settings.all_pods:
            running = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
            self._others = [Mirrored(self._api, "/api/v1/pods", _unheard, self._core.failed, **running)]
            self._mirrors += self._others
        self._mirrors.append(self._nodes)
        for mirror in self._mirrors:
            await mirror.list()
        self._capacity = await self.capacity()
        self._tasks = [asyncio.create_task(mirror.follow(), name=mirror.path) for mirror in self._mirrors]
        self._tasks.append(asyncio.create_task(self._tell_capacity(), name="capacity"))
        self._link.start(_listening(self._settings.listen))

    async def close(self) -> None:
        tasks = [*self._tasks, *(run.task for run in self._runs.values() if run.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._link.close()
        await self._api.close()

    # --- what the agent asks

    async def apply(self, desired: Desired) -> None:
        if desired.spec is None:
            return
        key = AttemptKey(desired.job, desired.attempt)
        run = self._run(key, self._settings.namespace_of(desired.spec.project))
        run.desired = desired
        if not run.reported and run.refusal is None:
            await self._make(run, desired, desired.spec)

    async def _make(self, run: _Run, desired: Desired, spec: JobSpec) -> None:
        try:
            await self._make_objects(run, desired, spec)
        except Refused as error:
            run.refusal = Reason(code="start_failed", message=f"Kubernetes refused it: {error}")
        run.news.set()

    async def _make_objects(self, run: _Run, desired: Desired, spec: JobSpec) -> None:
        """Make what isn't there yet; what is there stays as another release of this agent may have made it."""
        base = f"/api/v1/namespaces/{run.namespace}"
        if run.namespace not in self._has_runner:
            await self._api.apply(f"{base}/configmaps", manifests.runner())
            self._has_runner.add(run.namespace)
        if run.job is None:
            job = manifests.job(desired, spec, self._settings, self._identity.name)
            run.job = await self._api.apply(f"/apis/batch/v1/namespaces/{run.namespace}/jobs", job)
        host, _, port = self._settings.link.rpartition(":")
        token = self._link.token(*run.key)
        link = {"host": host, "port": int(port), "ca": self._identity.authority, "token": token}
        await self._api.apply(f"{base}/secrets", manifests.secret(desired, spec, run.job, link))

    async def stop(self, key: AttemptKey, grace: float) -> None:
        """Its runner learns it from its parked request; a pod that never ran, or doesn't end, is deleted."""
        run = self._runs.get(key)
        if run is not None and run.stopping is None:
            run.stopping, run.grace = asyncio.get_running_loop().time(), grace
            run.news.set()

    async def forget(self, key: AttemptKey) -> None:
        run = self._runs.get(key)
        if run is None:
            return
        if run.task is not None:
            run.task.cancel()
            await asyncio.gather(run.task, return_exceptions=True)
        while True:
            await self._delete(run, grace=0 if run.reported else None)
            if run.job is None and not run.pods:
                break
            run.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await run.news.wait()
        self._runs.pop(key, None)

    def owned(self) -> list[Owned]:
        return [
            Owned(job=run.key.job, attempt=run.key.attempt, incarnation=self._incarnation(run))
            for run in self._runs.values()
        ]

    async def capacity(self) -> Capacity:
        pods = [pod for mirror in self._others for pod in mirror.objects.values()]
        return nodes.capacity(self._nodes.objects.values(), pods, self._identity.name)

    async def spooled(self) -> int:
        return 0  # it lies in the pods

    async def keep(self, name: str) -> None:
        await self._vault.store(name)

    async def _tell_capacity(self) -> None:
        while True:
            await asyncio.sleep(CAPACITY_EVERY)
            capacity = await self.capacity()
            if capacity != self._capacity:
                self._capacity = capacity
                self._core.capacity_changed(capacity)

    # --- what the cluster says

    def _run(self, key: AttemptKey, namespace: str) -> _Run:
        run = self._runs.get(key)
        if run is None:
            run = self._runs[key] = _Run(key, namespace)
            run.task = asyncio.create_task(self._see_through(run), name=f"attempt {manifests.name(key)}")
        return run

    def _job_changed(self, job: Object, there: bool) -> None:
        self._changed(job, there, lambda run: setattr(run, "job", job if there else None))

    def _pod_changed(self, pod: Object, there: bool) -> None:
        def take(run: _Run) -> None:
            uid = pod["metadata"]["uid"]
            if there:
                run.pods[uid] = pod
            else:
                run.pods.pop(uid, None)
            run.last = pod

        self._changed(pod, there, take)

    def _changed(self, item: Object, there: bool, take: Callable[[_Run], None]) -> None:
        key = manifests.key_of(item, self._identity.name)
        if key is None or (not there and key not in self._runs):
            return
        run = self._run(key, item["metadata"]["namespace"])
        take(run)
        run.news.set()

    def _on_reported(self, key: AttemptKey) -> None:
        run = self._runs.get(key)
        if run is not None:
            run.reported = True
            run.news.set()

    def _on_records(self, key: AttemptKey, lines: bytes) -> None:
        run = self._runs.get(key)
        if run is not None:
            run.seen = seen(lines, run.seen)

    def _explain_end(self, key: AttemptKey, reason: Reason | None) -> Reason | None:
        """Say who stopped a runner that knows only that it was told to end."""
        run = self._runs.get(key)
        if reason is None or reason.code != "stopped" or run is None or run.stopping is not None:
            return reason
        return explaining.ended(run.pod or run.last)

    # --- an attempt's life

    def _incarnation(self, run: _Run) -> str:
        """Who has the right to run the attempt, as far as this agent can know."""
        claimed = self._core.claimed_by(run.key)
        if claimed:
            return claimed
        pod = run.pod or run.last
        return "" if pod is None else str(pod["metadata"]["uid"])

    async def _see_through(self, run: _Run) -> None:
        pause = 1.0
        while not run.reported:
            try:
                await self._look(run)
                pause = 1.0
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await run.news.wait()
                run.news.clear()
            except Exception:  # the loop's edge: other attempts go on
                self._core.failed()
                log.exception("attempt %s can't be seen through", manifests.name(run.key))
                await asyncio.sleep(pause)
                pause = min(2 * pause, AGAIN_AT_MOST)

    async def _look(self, run: _Run) -> None:
        """See how it stands, and do what follows from it."""
        pod = run.pod
        over = pod is not None and explaining.is_over(pod)
        if over or run.refusal is not None or self._is_gone(run):
            await self._conclude(run, pod)
            return
        if run.stopping is not None:
            await self._press(run, pod)
        elif (reason := explaining.hopeless(pod)) is not None:
            run.refusal = Reason(code="start_failed", message=reason.message)
            await self._delete(run)
        elif run.job is not None:
            await self._explain(run, pod)
        elif run.desired is not None and run.desired.spec is not None:
            await self._make(run, run.desired, run.desired.spec)  # somebody deleted it before it had begun

    def _is_gone(self, run: _Run) -> bool:
        """Say whether nothing runs any more, nor will: the Job has failed, or was deleted after its code had begun."""
        if run.pods:
            return False
        if run.job is None:
            begun = bool(self._core.claimed_by(run.key)) or run.desired is None
            return begun or run.stopping is not None
        conditions = run.job.get("status", {}).get("conditions") or ()
        return any(c["type"] in ("Failed", "Complete") and c["status"] == "True" for c in conditions)

    async def _press(self, run: _Run, pod: Object | None) -> None:
        """End what was asked to stop: at once where nothing of it ever ran, else when its time is over."""
        assert run.stopping is not None, "it was asked to stop"
        over = run.stopping + run.grace + PATIENCE
        if pod is None or not explaining.started(pod) or asyncio.get_running_loop().time() > over:
            await self._delete(run)

    async def _explain(self, run: _Run, pod: Object | None) -> None:
        """Tell why it waits."""
        reason = explaining.waiting(pod)
        if reason is not None and reason.code in ("creating", "starting_container"):
            # Nothing but events tells why that lasts.
            reason = explaining.waiting(pod, await self._events(run, pod or run.job))
        if reason is not None and reason != run.told:
            run.told = reason
            self._core.progress(Started(job=run.key.job, attempt=run.key.attempt, reason=reason))

    async def _events(self, run: _Run, item: Object | None) -> list[Object]:
        if item is None:
            return []
        selector = f"involvedObject.uid={item['metadata']['uid']}"
        found = await self._api.list(f"/api/v1/namespaces/{run.namespace}/events", fieldSelector=selector)
        items: list[Object] = found["items"]
        return items

    async def _delete(self, run: _Run, grace: int | None = None) -> None:
        name = manifests.name(run.key)
        if run.job is not None:
            await self._api.delete(f"/apis/batch/v1/namespaces/{run.namespace}/jobs/{name}")
        if grace is not None:
            for pod in list(run.pods.values()):
                path = f"/api/v1/namespaces/{run.namespace}/pods/{pod['metadata']['name']}"
                await self._api.delete(path, grace=grace, uid=pod["metadata"]["uid"])
        # Its owner's end deletes it as well; here it goes also where its owner was never made.
        await self._api.delete(f"/api/v1/namespaces/{run.namespace}/secrets/{name}")

    async def _conclude(self, run: _Run, pod: Object | None) -> None:
        """Report an end that the runner did not live to report."""
        reason = self._end_reason(run, pod)
        incarnation = self._incarnation(run)
        if incarnation:
            await tell_end(self._core, run.key, incarnation, reason, await self._unseen(run, pod))
        report = Report(job=run.key.job, attempt=run.key.attempt, incarnation=incarnation, reason=reason)
        await self._core.ended(report)
        run.reported = True

    async def _unseen(self, run: _Run, pod: Object | None) -> bytes | None:
        """Return the text that its container's log alone has; None where that can't be known."""
        if pod is None or not explaining.started(pod):
            return None
        path = f"/api/v1/namespaces/{run.namespace}/pods/{pod['metadata']['name']}/log"
        try:
            return unseen(await self._api.text(path, container=manifests.CONTAINER), run.seen)
        except Refused:
            return None  # its node, or the log on it, is gone

    def _end_reason(self, run: _Run, pod: Object | None) -> Reason:
        if run.refusal is not None:
            return run.refusal
        pod = pod or run.last
        if run.stopping is not None:
            began = pod is not None and explaining.started(pod)
            said = "its pod had to be deleted" if began else "cancelled before its container had started"
            return Reason(code="stopped", message=said)
        return explaining.ended(pod)


def _unheard(item: Object, there: bool) -> None:
    """Nobody waits for it: it is looked at now and then."""


async def _client(settings: KubernetesSettings) -> ApiClient:
    configuration = Configuration()
    try:
        if settings.kubeconfig:
            await config.load_kube_config(config_file=settings.kubeconfig, client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
            # A proxy is the way out of the cluster, not the one to its own API.
            known = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
            hosts = [urlsplit(configuration.host).hostname or "", *known]
            os.environ["no_proxy"] = ",".join(filter(None, hosts))
    except config.ConfigException as error:
        raise InvalidRequest(
            f"the way to the Kubernetes API can't be read: {error}",
            hint="Outside of a cluster, name one with --executor-option=kubeconfig=FILE.",
        ) from None
    return ApiClient(configuration)


def _listening(listen: str) -> socket.socket:
    address, _, port = listen.rpartition(":")
    sock = socket.create_server((address, int(port)), backlog=1024)
    sock.setblocking(False)
    return sock
