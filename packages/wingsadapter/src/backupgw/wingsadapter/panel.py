"""The Panel as a node calls it: `<panel>/api/remote`, by Pelican's and Pterodactyl's routes.

Network errors and 5xx may pass, 4xx are final. Answers are small, and whatever they hold is the
Panel's word about this node only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT = httpx.Timeout(30.0, connect=10.0)
PER_PAGE = 100
_MOST_PAGES = 10_000


class PanelError(Exception):
    """The Panel did not do what it was asked for.

    Attributes:
        status: of its answer; None where there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same may succeed later."""
        return self.status is None or self.status >= 500 or self.status in (408, 425, 429)


@dataclass(frozen=True)
class Server:
    """A server of this node, as far as backups are concerned.

    Attributes:
        disk_limit: bytes; None: none.
    """

    uuid: str
    disk_limit: int | None = None


class Panel:
    """A Panel. For any thread.

    Args:
        address: without a slash at its end.
        token_id, token: this node's.
    """

    def __init__(
        self,
        address: str,
        token_id: str,
        token: str,
        *,
        headers: Mapping[str, str] | None = None,
        agent: str = "backupgw",
    ) -> None:
        self._base = f"{address}/api/remote"
        self._client = httpx.Client(
            headers={
                **(headers or {}),
                "Authorization": f"Bearer {token_id}.{token}",
                "Accept": "application/json",
                "User-Agent": agent,
            },
            timeout=TIMEOUT,
            follow_redirects=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def backup_ended(self, backup: str, document: Mapping[str, Any]) -> None:
        """Tell how a backup has ended.

        Raises:
            PanelError: it did not take it.
        """
        self._call("POST", f"/backups/{backup}", document)

    def restore_ended(self, backup: str, *, successful: bool) -> None:
        """Tell how a restore has ended.

        Raises:
            PanelError: it did not take it.
        """
        self._call("POST", f"/backups/{backup}/restore", {"successful": successful})

    def upload_plan(self, backup: str, size: int) -> object:
        """Return where the parts of an archive of `size` bytes go, as the Panel says it.

        Raises:
            PanelError: it did not say.
        """
        return self._call("GET", f"/backups/{backup}?size={size}")

    def lists(self, backup: str) -> bool:
        """Return whether the Panel knows a backup: only a 404 says that it does not.

        It is asked where to upload it: for one that is complete the answer is 409.
        """
        try:
            self._call("GET", f"/backups/{backup}?size=1")
        except PanelError as error:
            return error.status != 404
        return True

    def server(self, uuid: str) -> Server | None:
        """Return a server of this node; None: the Panel says there is none.

        Raises:
            PanelError: it did not say.
        """
        try:
            found = self._call("GET", f"/servers/{uuid}")
        except PanelError as error:
            if error.status == 404:
                return None
            raise
        settings = found.get("settings") if isinstance(found, dict) else None
        return _server(uuid, settings)

    def servers(self) -> Iterator[Server]:
        """Yield all servers of this node.

        Raises:
            PanelError: it does not tell them.
        """
        page = 1
        while page <= _MOST_PAGES:
            found = self._call("GET", f"/servers?page={page}&per_page={PER_PAGE}")
            try:
                for each in found["data"]:
                    yield _server(str(each["uuid"]), each.get("settings"))
                last = int(found["meta"]["last_page"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise PanelError("the Panel's list of servers is not as expected") from error
            if page >= last:
                return
            page += 1

    def _call(self, method: str, path: str, document: object = None) -> Any:
        what = f"the Panel, {method} {path.partition('?')[0]}"
        try:
            answer = self._client.request(
                method, f"{self._base}{path}", json=document if document is not None else None
            )
        except httpx.HTTPError as error:
            raise PanelError(f"{what}: {str(error) or type(error).__name__}") from error
        if answer.status_code >= 300:
            raise PanelError(
                f"{what}: {answer.status_code}{_detail(answer)}", status=answer.status_code
            )
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            return None


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["errors"][0]["detail"]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    return f" ({' '.join(str(detail).split())[:300]})"


def _server(uuid: str, settings: object) -> Server:
    limit = None
    if isinstance(settings, dict) and isinstance(settings.get("build"), dict):
        disk = settings["build"].get("disk_space")
        if isinstance(disk, int) and disk > 0:
            limit = disk << 20
    return Server(uuid, limit)
