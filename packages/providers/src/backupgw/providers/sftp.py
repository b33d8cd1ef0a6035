"""The provider `sftp`: a folder on a server that one can log in to by SSH."""

from __future__ import annotations

from urllib.parse import quote

from .fields import one_of, path, secret, switch, text, whole
from .place_provider import PlacePlan, PlaceProvider


class SFTPProvider(PlaceProvider):
    """Files in a folder on a server."""

    title = "SFTP"
    processes = True
    overlap = 2
    scheme = "sftp"
    libraries = ("paramiko",)
    extra = "sftp"
    credentials = ("username", "password")
    fields = (
        text("host", "the server: a name, an address, or a host of ssh's settings",
             required=True, also=("hostname", "server")),
        whole("port", "where it listens", None, 1, 65535),
        text("container", "the folder; relative to the login's, unless it starts with /",
             "homeserver-backups", also=("path", "remote_path")),
        text("folder", "a folder in it"),
        path("key_file", "a private key to log in by", also=("private_key_path", "key_filename")),
        secret("passphrase", "of the private key"),
        path("known_hosts", "file of known hosts, in the place of ssh's own"),
        path("ssh_config", "file of ssh's settings, in the place of the user's and the system's"),
        switch("agent", "ask ssh's agent for keys", default=True),
        one_of("durability", "full: the server syncs before a file counts as stored",
               ("full", "fast"), "full"),
    )  # fmt: skip

    def plan(self) -> PlacePlan:
        value = self.values
        user = f"{quote(value['username'], safe='')}@" if value["username"] else ""
        host = f"[{value['host']}]" if ":" in value["host"] else value["host"]
        port = f":{value['port']}" if value["port"] else ""
        folder = "/".join(
            filter(None, (value["container"].rstrip("/"), (value["folder"] or "").strip("/")))
        )
        options = {
            name: value[name]
            for name in ("password", "key_file", "passphrase", "known_hosts", "ssh_config")
            if value[name] is not None
        }
        return PlacePlan(
            f"sftp://{user}{host}{port}/{quote(folder)}",
            {
                **options,
                "agent": value["agent"],
                "durability": value["durability"],
                "connections": self.connection_pool_size,
                "timeout": self.timeout,
                "connect_timeout": self.timeout,
            },
        )
