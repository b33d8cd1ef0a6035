"""Whose turn it is to make a repository that several nodes share: a claim in the place itself.

Two `restic init` at once make a repository that opens by chance only. What restic calls a place,
the kernel reaches as well, by the same credentials, and lays a claim there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backupgw.runtime.restic import PlaceTurn, Turn


class NoTurn(Exception):
    """No claim can be made there; `str()` says why."""


def turn_of(address: str, environment: Mapping[str, str]) -> Turn:
    """Return what keeps nodes that share a repository from making it at once.

    Args:
        address: of the repository, as restic takes it.
        environment: that restic gets for it.

    Raises:
        NoTurn: nothing does.
    """
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.registry import open_place

    found = _place_of(address, environment)
    if found is None:
        scheme = address.partition(":")[0]
        raise NoTurn(f"in a place like {scheme}: nothing keeps two nodes from making it at once")
    url, options = found
    try:
        return PlaceTurn(open_place(url, **options))
    except (BackendError, ImportError) as error:
        raise NoTurn(f"no claim can be made in its place ({error})") from error


def _place_of(address: str, environment: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Return the kernel's URL and options for a place of restic's; None: it has none."""
    scheme, colon, rest = address.partition(":")
    if address.startswith("/") or scheme == "local":
        return f"file://{address.removeprefix('local:')}", {}
    if not colon:
        return None
    if scheme == "s3":
        target = rest
        if not target.startswith(("http://", "https://")):
            target = f"https://{target.removeprefix('//')}"
        return f"s3:{target}", _given(
            environment,
            access_key_id="AWS_ACCESS_KEY_ID",
            secret_access_key="AWS_SECRET_ACCESS_KEY",  # noqa: S106 - a variable's name
            region="AWS_DEFAULT_REGION",
        )
    if scheme == "b2":
        bucket, _, path = rest.partition(":")
        return f"backblaze:{bucket}/{path.strip('/')}", _given(
            environment, key_id="B2_ACCOUNT_ID", application_key="B2_ACCOUNT_KEY"
        )
    if scheme == "gs":
        return address, _given(environment, service_account="GOOGLE_APPLICATION_CREDENTIALS")
    if scheme == "sftp" and not rest.startswith("//"):
        host, _, path = rest.partition(":")
        return f"sftp://{host}/{path}", {}
    if scheme in ("rclone", "sftp"):
        return address, {}
    return None


def _given(environment: Mapping[str, str], **variables: str) -> dict[str, Any]:
    return {
        option: environment[name] for option, name in variables.items() if environment.get(name)
    }
