"""The parts that need no restic, put together for a node: archives, downloads, the Wings behind."""

from __future__ import annotations

from collections.abc import Callable

from backupgw.runtime.database import Database
from backupgw.runtime.threads import Threads
from backupgw.runtime.tokens.database import DatabaseTokens

from .adapter import AdapterError
from .archive_adapters import S3Adapter, WingsAdapter
from .download_source import host_entries
from .downloads import Downloads, DownloadTokens
from .local_archives import LocalArchives
from .node import Node
from .panel import Panel, PanelError
from .settings import WingsSettings
from .wings_file import Compression

SPOOL = ".backupgw-s3"
"""Folder in the backup folder where archives of `s3` lie while they are on their way."""


class PanelUploads:
    """`PartSource`: the Panel, asked where the parts of an archive go."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel

    def upload_plan(self, backup: str, size: int) -> object:
        """See `PartSource`."""
        try:
            return self._panel.upload_plan(backup, size)
        except PanelError as error:
            # A 404 may be early: the Panel calls before its own transaction has ended.
            retryable = error.passing or error.status == 404
            raise AdapterError(str(error), retryable=retryable) from error


class ArchivesHere:
    """The node's folder of archives, and what stands on it.

    Attributes:
        wings: the adapter of that name.
        s3: the adapter of that name; None without a Panel, which alone has the bucket.
    """

    def __init__(self, section: WingsSettings, node: Node, panel: Panel | None) -> None:
        block = node.wings.system.backups if node.wings else None
        compression = block.compression_level if block else Compression.BEST_SPEED
        limit = block.write_limit if block else 0
        self._token = node.token
        self._archives = LocalArchives(str(node.backup_directory), write_limit=limit)
        self.wings = WingsAdapter(self._archives, compression=compression)
        self.s3 = None
        if panel is not None:
            self.s3 = S3Adapter(
                PanelUploads(panel),
                LocalArchives(str(node.backup_directory / SPOOL), write_limit=limit),
                allowed=host_entries(section.download_hosts),
                compression=compression,
            )

    def downloads(
        self, database: Database, threads: Threads, knows: Callable[[str], bool]
    ) -> Downloads:
        """Return the route of signed downloads.

        Args:
            database: remembers which addresses were used.
            threads: where blocking calls run.
            knows: whether a server is this node's.
        """
        tokens = DownloadTokens(self._token, DatabaseTokens(lambda: database))
        return Downloads(tokens, self._archives, threads, knows)
