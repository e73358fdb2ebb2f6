"""Begins an attempt that is a pod: what it needs was mounted, and its container is all that there is of it."""

from __future__ import annotations

import os
import shutil
import sys

from . import launching
from .mirror import Mirror

#: the variable that holds the pod's UID: what claims the attempt
UID = "JGP_POD_UID"


def main(argv: list[str]) -> int:
    """Supervise the attempt.

    :param argv: a folder to work in, which this pod alone has; and the one that holds ``spec.json``.
    """
    folder, given_at = map(os.path.abspath, argv)
    incarnation = os.environ.pop(UID)
    os.makedirs(os.environ["HOME"], exist_ok=True)
    shutil.copyfile(os.path.join(given_at, "spec.json"), os.path.join(folder, "spec.json"))
    me = launching.Identity(incarnation)
    given = launching.take(folder, me)
    if given is None:
        return 3
    given["python"] = given.get("python") or sys.executable
    env = launching.environment(given, incarnation)
    worker = launching.Worker(given["python"], given["spec"]["source"]["type"], env, given.get("workdir") or None)
    from .supervisor import supervise

    return supervise(folder, given, incarnation, worker, mirror=Mirror(1))
