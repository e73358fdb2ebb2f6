"""``jupyter gpu cluster``: joins clusters, closes them for new jobs, and removes them. For administrators."""

from __future__ import annotations

import ipaddress
import re
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .. import errors
from ..charts import RELEASE, Joining, helm_command, manifest
from ..client.protocol import Document
from . import each, tables
from .arguments import Parser
from .connecting import connect

if TYPE_CHECKING:
    from ..client.sync import Client

_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_URL = re.compile(r"[\w.:/\[\]~-]+")
_IMAGE = re.compile(r"[\w./:@-]*")
#: seconds between looks at what an agent or an admin elsewhere brings about
LOOK = 1.0


def parser() -> Parser:
    made = Parser(
        "cluster",
        "Join a Kubernetes cluster (add), give its agent a new credential, or a new agent (join), close it for new "
        "jobs (drain), open it again (open), or remove it (rm). For administrators. `add` and `join` print a command "
        "to paste where Helm reaches the cluster; it is good for one agent, and for an hour. `rm` closes the cluster, "
        "waits until its jobs have ended, and revokes its agent.",
        examples="""
            jupyter gpu cluster add lab --url https://gpu.example.org
            jupyter gpu cluster add lab --manifest | kubectl apply -f -
            jupyter gpu cluster drain lab
            jupyter gpu cluster rm lab --cancel      # ends what still runs there
        """,
    )
    made.add_argument("verb", metavar="VERB", choices=tuple(VERBS), help=f"one of: {', '.join(VERBS)}")
    made.add_argument("cluster", metavar="NAME", help="the cluster, as jobs will name it")
    joining = made.add_argument_group("of add and join")
    joining.add_argument(
        "--url",
        metavar="URL",
        action="append",
        default=[],
        help="where the cluster reaches the control service; repeatable, once for each replica (default: "
        "JUPYTER_GPU_URL)",
    )
    joining.add_argument(
        "--namespace", default="jupyter-gpu", help="where the agent and its jobs run (default: %(default)s)"
    )
    joining.add_argument("--agent-image", metavar="IMAGE", default="", help="the agent's (default: the chart's own)")
    joining.add_argument("--manifest", action="store_true", help="print a manifest for kubectl in place of the command")
    joining.add_argument("--wait", action="store_true", help="then wait until the agent is connected")
    made.add_argument("--cancel", action="store_true", help="with rm: cancel the jobs that run there")
    made.add_argument("--yes", "-y", action="store_true", help="with rm: don't ask")
    made.json_option("the cluster, or how it joins,")
    return made


def main(argv: list[str]) -> int:
    made = parser()
    args = made.parse_args(argv)
    if args.wait and args.manifest:
        made.error("--wait can't go with --manifest: who reads the manifest waits for its end")
    with connect() as client:
        return VERBS[args.verb](client, args)


def _add(client: Client, args: Namespace) -> int:
    _checked(args)
    urls = _urls(client, args.url)
    return _tell(client, args, urls, client.cluster_add(args.cluster), again=False)


def _join(client: Client, args: Namespace) -> int:
    _checked(args)
    urls = _urls(client, args.url)
    return _tell(client, args, urls, client.cluster_join_token(args.cluster), again=True)


def _urls(client: Client, given: list[str]) -> tuple[str, ...]:
    """Say where the agent dials.

    :raises InvalidRequest: no cluster can reach it there.
    """
    urls = tuple(url.rstrip("/") for url in given) or (client.url,)
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or not _URL.fullmatch(url):
            raise errors.InvalidRequest(f"{url!r} is no URL", hint="Such as --url https://gpu.example.org")
        if not given and _loopback(parts.hostname):
            raise errors.InvalidRequest(
                f"no cluster reaches {url}: this machine alone does",
                hint="Name the control service as the cluster reaches it: --url URL",
            )
    return urls


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _checked(args: Namespace) -> None:
    """Refuse what a shell or YAML could take for more than a name.

    :raises InvalidRequest: it is none.
    """
    for option, value, form in (
        ("--namespace", args.namespace, _NAMESPACE),
        ("--agent-image", args.agent_image, _IMAGE),
    ):
        if not form.fullmatch(value):
            raise errors.InvalidRequest(f"{option} {value!r} can't be one", hint=f"It matches {form.pattern}.")


def _tell(client: Client, args: Namespace, urls: tuple[str, ...], made: Document, *, again: bool) -> int:
    known = _agents(client, args.cluster)
    joining = Joining(urls, made["join_token"], args.namespace, args.agent_image)
    if args.json:
        tables.write_json({**made, "helm": helm_command(joining, again=again), "manifest": manifest(joining)})
    elif args.manifest:
        print(manifest(joining), end="")
    else:
        until = tables.clock(made["expires"])
        print(f"Run this where Helm reaches the cluster; it is good for one agent, until {until}:\n")
        print(helm_command(joining, again=again), flush=True)
    if args.wait:
        _say(f"waiting for the agent of {args.cluster} …")
        while _agents(client, args.cluster) <= known:
            time.sleep(LOOK)
        _say(f"{args.cluster} is connected")
    return 0


def _agents(client: Client, cluster: str) -> set[str]:
    """Name a cluster's agents that were ever heard."""
    return {agent["id"] for agent in client.agents() if agent["cluster"] == cluster and agent["seen"]}


def _drain(client: Client, args: Namespace) -> int:
    return _changed(client, args, drained=True)


def _open(client: Client, args: Namespace) -> int:
    return _changed(client, args, drained=False)


def _changed(client: Client, args: Namespace, *, drained: bool) -> int:
    cluster = client.cluster_drain(args.cluster, drained)
    if args.json:
        tables.write_json(cluster)
    else:
        print(f"{args.cluster}  {'is closed for new jobs; those that run go on' if drained else 'is open'}")
    return 0


def _remove(client: Client, args: Namespace) -> int:
    cluster = client.cluster(args.cluster)
    open_now = _open_jobs(client, args.cluster)
    if not args.yes:
        first = (
            ("Cancel them, and remove" if args.cancel else "Wait for their end, and remove") if open_now else "Remove"
        )
        if not each.agreed([f"{args.cluster} runs {_jobs(len(open_now))}"], f"{first} it?"):
            return 1
    client.cluster_drain(args.cluster)
    if args.cancel:
        for job in open_now:
            client.cancel(job)
    left = -1
    while open_now := _open_jobs(client, args.cluster):
        if len(open_now) != left:
            left = len(open_now)
            _say(f"waiting for the end of {_jobs(left)} …")
        time.sleep(LOOK)
    client.cluster_remove(args.cluster)
    if args.json:
        tables.write_json(cluster)
    else:
        print(f"{args.cluster}  is removed, and its agent refused. There, in its namespace: helm uninstall {RELEASE}")
    return 0


def _open_jobs(client: Client, cluster: str) -> list[str]:
    from ..model.jobs import ENDED, Phase

    phases = [phase for phase in Phase if phase not in ENDED]
    return [job.id for job in client.iter_jobs(cluster=cluster, phases=phases)]


def _jobs(count: int) -> str:
    return f"{count or 'no'} job{'s' * (count != 1)}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


VERBS = {"add": _add, "join": _join, "drain": _drain, "open": _open, "rm": _remove}
