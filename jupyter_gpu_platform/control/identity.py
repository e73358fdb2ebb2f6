"""Who calls: bearer tokens of people and of agents, and what each may see.

Tokens are random (256 bits), so a plain SHA-256 is what is stored and looked up: a password hash would only make a
thousand agents coming back at once expensive.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec
from msgspec.structs import replace

from .. import errors
from .store.rows import Agent, ApiToken, JoinToken, Role

if TYPE_CHECKING:
    from .store.reader import Reader
    from .store.transaction import Transaction
    from .store.writer import Writer

T = TypeVar("T")

#: For so long (seconds) an answer of the store about a token is believed, unless the change log tells of a revocation:
#: the time in which another replica's takes hold here while the log can't be read.
CACHE_SECONDS = 5.0
CACHE_ENTRIES = 10_000
#: seconds in which a join token must be used
JOIN_SECONDS = 3600.0


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever a request speaks for."""

    user: str
    role: Literal["admin", "user", "viewer", "agent", "nobody"]
    project: str = "default"
    organisation: str = "default"


NOBODY = Principal(user="", role="nobody")


def new_token(prefix: str) -> str:
    """Make a token that nobody can guess; the prefix tells people and secret scanners what it is."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Identity:
    """Knows tokens by their hashes; keeps what it knows for a moment."""

    def __init__(self, writer: Writer, reader: Reader, *, now: Callable[[], float]) -> None:
        self._writer = writer
        self._reader = reader
        self._now = now
        #: tokens given by the service's own start, never stored
        self._fixed: dict[str, Principal] = {}
        #: how often `forget` was called
        self._forgotten = 0
        #: token hash → (who, when to ask again, when the token itself expires)
        self._known: OrderedDict[str, tuple[Principal | None, float, float | None]] = OrderedDict()

    def add_fixed(self, token: str, principal: Principal) -> None:
        """Accept *token* as *principal* while this process lives."""
        self._fixed[digest(token)] = principal

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return who a request's Authorization header speaks for.

        :raises Unauthenticated: there is none, or its token is unknown, expired or revoked.
        """
        token = bearer(authorization)
        hashed = digest(token)
        if hashed in self._fixed:
            return self._fixed[hashed]
        principal = await self._stored(hashed)
        if principal is None:
            raise errors.Unauthenticated(
                "the token is unknown, expired or revoked", hint="Get a new one from the platform's admin."
            )
        return principal

    async def _stored(self, hashed: str) -> Principal | None:
        now = self._now()
        known = self._known.get(hashed)
        if known is not None and now < known[1]:
            return None if known[2] is not None and now >= known[2] else known[0]

        def look(tx: Transaction) -> tuple[ApiToken | None, Agent | None]:
            token = tx.token_by_hash(hashed)
            return token, None if token else tx.agent_by_hash(hashed)

        asked = self._forgotten
        token, agent = await self._reader.run(look)
        principal: Principal | None = None
        expires = None
        if token is not None:
            expires = token.expires
            principal = Principal(
                user=token.user, role=token.role, project=token.project, organisation=token.organisation
            )
        elif agent is not None and not agent.revoked:
            principal = Principal(user=agent.id, role="agent")
        if asked == self._forgotten:  # else the answer may be older than the revocation
            self._known[hashed] = (principal, now + CACHE_SECONDS, expires)
            self._known.move_to_end(hashed)
        while len(self._known) > CACHE_ENTRIES:
            self._known.popitem(last=False)
        return None if expires is not None and now >= expires else principal

    async def agent(self, authorization: str | None) -> Agent:
        """Return the agent whose credential an Authorization header carries; always asks the store.

        :raises Unauthenticated: the credential is unknown or revoked.
        """
        hashed = digest(bearer(authorization))
        agent = await self._reader.run(lambda tx: tx.agent_by_hash(hashed))
        if agent is None or agent.revoked:
            raise errors.Unauthenticated(
                "the agent's credential is unknown or revoked", hint="Join the cluster again with a new join token."
            )
        return agent

    # tokens of people

    async def create_token(
        self, user: str, role: Role, project: str, organisation: str, ttl: float | None
    ) -> tuple[ApiToken, str]:
        """Make a token for *user*; the second part is the secret, shown this once."""
        secret, now = new_token("jgp"), self._now()
        token = ApiToken(
            id="t" + secrets.token_hex(8),
            hash=digest(secret),
            user=user,
            role=role,
            project=project,
            organisation=organisation,
            created=now,
            expires=None if ttl is None else now + ttl,
        )
        await self._writer.run(lambda tx: tx.put_token(token))
        return token, secret

    async def delete_token(self, token_id: str) -> None:
        """Revoke a person's token; here at once, on other replicas as soon as they read the change log."""
        if not await self._writer.run(lambda tx: tx.delete_token(token_id)):
            raise errors.NotFound(f"there is no token {token_id}", hint="GET /api/v1/tokens lists them.")
        self.forget()

    # agents

    async def create_join_token(self, cluster: str) -> tuple[str, float]:
        """Make a token by which one agent may join *cluster*; returns it and when it expires."""
        secret, expires = new_token("jgpjoin"), self._now() + JOIN_SECONDS

        def operation(tx: Transaction) -> None:
            if tx.cluster(cluster) is None:
                raise errors.NotFound(f"there is no cluster {cluster!r}", hint="GET /api/v1/clusters lists them.")
            tx.put_join_token(JoinToken(hash=digest(secret), cluster=cluster, expires=expires))

        await self._writer.run(operation)
        return secret, expires

    async def join(self, join_token: str, replaces: str = "") -> tuple[Agent, str]:
        """Trade a join token for an agent of its own; the second part is its credential, shown this once.

        :param replaces: the credential that it had, which is good for nothing from then on.
        :raises Unauthenticated: the token is unknown, used or expired, or its cluster was removed.
        """
        now = self._now()

        def operation(tx: Transaction) -> tuple[Agent, str]:
            token = tx.take_join_token(digest(join_token))
            if token is None or token.expires <= now or tx.cluster(token.cluster) is None:
                raise errors.Unauthenticated(
                    "the join token is unknown, used or expired", hint="Ask the platform's admin for a new one."
                )
            older = tx.agent_by_hash(digest(replaces)) if replaces else None
            if older is not None and older.cluster == token.cluster and not older.revoked:
                tx.put_agent(replace(older, revoked=True))
            return self._new_agent(tx, token.cluster)

        joined = await self._writer.run(operation)
        if replaces:
            self.forget()
        return joined

    async def create_agent(self, cluster: str) -> tuple[Agent, str]:
        """Make an agent without a join token: the local platform's own."""
        return await self._writer.run(lambda tx: self._new_agent(tx, cluster))

    def _new_agent(self, tx: Transaction, cluster: str) -> tuple[Agent, str]:
        credential = new_token("jgpagent")
        agent = Agent(
            id="a" + secrets.token_hex(8), cluster=cluster, credential_hash=digest(credential), created=self._now()
        )
        tx.put_agent(agent)
        return agent, credential

    async def revoke_agent(self, agent_id: str) -> None:
        """Refuse an agent's credential from now on."""

        def operation(tx: Transaction) -> None:
            agent = tx.agent(agent_id)
            if agent is None:
                raise errors.NotFound(f"there is no agent {agent_id}", hint="GET /api/v1/agents lists them.")
            if not agent.revoked:
                tx.put_agent(replace(agent, revoked=True))

        await self._writer.run(operation)
        self.forget()

    def forget(self) -> None:
        """Ask the store anew about every token: some were revoked."""
        self._forgotten += 1
        self._known.clear()


def bearer(authorization: str | None) -> str:
    """Return the token in an Authorization header.

    :raises Unauthenticated: there is no header, or it is of another kind.
    """
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise errors.Unauthenticated("no token was sent", hint="Send the header 'Authorization: Bearer <token>'.")
    return token
