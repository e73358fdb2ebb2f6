"""What an admin tells the executor: the options of ``--executor-option=NAME=VALUE``, of which the chart sets most."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from jupyter_gpu_platform import errors


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how pods run."""

    #: how to reach the API server; empty: as a pod of the cluster does
    kubeconfig: str = ""
    #: ``namespace/name`` of the Secret that keeps what this agent must not forget; empty: its state directory does
    state_secret: str = ""
    #: where jobs run whose project has no namespace of its own
    namespace: str = "default"
    #: ``project=namespace``, with commas between
    projects: str = ""
    #: what jobs run in that name no image
    image: str = "python:3.12-slim"
    #: ``host:port`` at which pods reach this agent
    link: str = ""
    #: ``address:port`` to listen at for them
    listen: str = "0.0.0.0:8443"
    #: the user that jobs run as, by number; ``image``: the image's own
    user: str = "1000"
    #: also count what pods of others hold in namespaces that no job runs in, which needs leave to list them
    all_pods: bool = False
    #: ``Always``, ``IfNotPresent`` or ``Never``; empty: Kubernetes' own choice
    pull_policy: str = ""
    #: Secrets, in the jobs' namespaces, for registries that ask who pulls; with commas between
    pull_secrets: str = ""

    @classmethod
    def read(cls, options: Mapping[str, str]) -> KubernetesSettings:
        """Read the options.

        :raises InvalidRequest: one is unknown or can't be read.
        """
        try:
            settings = msgspec.convert(dict(options), cls, strict=False)
        except msgspec.ValidationError as error:
            names = ", ".join(cls.__struct_fields__)
            raise errors.InvalidRequest(f"--executor-option: {error}", hint=f"There are: {names}.") from None
        if ":" not in settings.link:
            raise errors.InvalidRequest(
                "pods have no way to this agent", hint="Give --executor-option=link=HOST:PORT, as pods reach it."
            )
        return settings

    def namespace_of(self, project: str) -> str:
        """Say where a project's jobs run."""
        return self._by_project().get(project, self.namespace)

    def namespaces(self) -> list[str]:
        """List every namespace that jobs run in."""
        return sorted({self.namespace, *self._by_project().values()})

    def _by_project(self) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in self.projects.split(",") if pair)
        return {project.strip(): namespace.strip() for project, _, namespace in pairs}
