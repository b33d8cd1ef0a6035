"""How a server is reached: by which settings of ssh, as whom, over how many connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .sftp_config import Settings
from .sftp_login import Connection, Credentials, Patience
from .sftp_pool import Pool
from .sftp_urls import Target


@dataclass(frozen=True)
class Reach:
    """The way to a server.

    Attributes:
        target: what the URL names.
        ssh_config: files of ssh's settings.
        known_hosts: files of known hosts, in the place of those that ssh's settings name.
        agent: whether ssh's agent is asked for keys.
        connections, sessions: how many SSH connections there are at most, and SFTP sessions in
            each.
    """

    target: Target
    credentials: Credentials
    patience: Patience
    ssh_config: Sequence[str]
    known_hosts: Sequence[str]
    agent: bool
    connections: int
    sessions: int

    @property
    def server(self) -> str:
        """What messages call the server."""
        return self.target.server

    def dial(self) -> Connection:
        """Connect. The settings are read each time: they may have changed."""
        settings = Settings(self.ssh_config)
        host = settings.host(self.target.host, user=self.target.user, port=self.target.port)
        route = settings.route(host)
        if self.known_hosts:
            route = [replace(each, known_hosts=tuple(self.known_hosts)) for each in route]
        if not self.agent:
            route = [replace(each, agent=None) for each in route]
        return Connection(route, self.credentials, self.patience, self.server)

    def pool(self, *, small: bool = False) -> Pool:
        """Return connections to be shared, none of them made yet; `small`: one session."""
        return Pool(
            self.dial,
            self.server,
            connections=1 if small else self.connections,
            sessions=1 if small else self.sessions,
            timeout=self.patience.answer,
        )
