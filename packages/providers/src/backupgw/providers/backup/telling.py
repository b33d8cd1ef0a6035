"""Who is told of a run: a health check by pings, and commands of the operator's.

Pings are those of healthchecks.io (https://healthchecks.io/docs/http_api/), which others have taken
over: URL/start, URL, URL/fail, each with the same `rid`, so that the service knows how long it
took.
A ping that fails is a warning: it never decides about a backup. The URL is a secret, since whoever
knows it can say that all is well.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence

import httpx

from backupgw.runtime.restic.child import run_child
from backupgw.runtime.restic.stopping import StopSignal
from backupgw.runtime.secrets import Secret, SecretError, redact_url

logger = logging.getLogger(__name__)

_TIMEOUT = 10.0
TRIES = 3
_PAUSE = 1.0
_MOST_BODY = 10_000
"""Bytes; healthchecks.io keeps no more."""
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR")
_MOST_SAID = 500


class Pings:
    """The pings of one run.

    Args:
        url: None: nobody is told.
    """

    def __init__(self, url: Secret | None) -> None:
        self._url = url
        self._run = str(uuid.uuid4())

    def start(self) -> None:
        """Say that it begins."""
        self._send("/start", "")

    def end(self, *, well: bool, text: str, tries: int = TRIES) -> None:
        """Say how it ended.

        Args:
            well: all of it was done.
            text: what there is to say, without secrets.
            tries: how often it is tried.
        """
        self._send("" if well else "/fail", text, tries)

    def _send(self, suffix: str, text: str, tries: int = TRIES) -> None:
        if self._url is None:
            return
        try:
            url = self._url.reveal().rstrip("/")
        except SecretError as error:
            logger.warning("no ping is sent: %s", error)
            return
        base, _, query = url.partition("?")
        parameters = "&".join(filter(None, (query, f"rid={self._run}")))
        reason = ""
        with httpx.Client(timeout=_TIMEOUT, follow_redirects=False) as client:
            for attempt in range(tries):
                if attempt:
                    # Back-off; nothing tells when the other side is back.
                    time.sleep(_PAUSE * attempt)
                try:
                    answer = client.post(
                        f"{base}{suffix}?{parameters}", content=text.encode()[:_MOST_BODY]
                    )
                except httpx.HTTPError as error:
                    reason = type(error).__name__
                    continue
                except (httpx.InvalidURL, UnicodeError):
                    reason = "the URL is none"
                    break
                if answer.status_code < 300:
                    return
                reason = f"status {answer.status_code}"
                if answer.status_code < 500 and answer.status_code != 429:
                    break
        # Never the URL, of which httpx's own messages make no secret.
        logger.warning("the ping %s was not taken: %s", suffix or "of success", reason)


class HookFailed(Exception):
    """A command did not end well; `str()` says how, in one line."""


def run_hook(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    time_limit: float,
    stop: StopSignal,
) -> None:
    """Run a command of the operator's; no shell reads it.

    Args:
        command: the program and its arguments.
        variables: BACKUPGW_BACKUP_…; besides these it gets only what a program needs to run.
        time_limit: seconds.

    Raises:
        HookFailed: it cannot be run, ended otherwise than with 0, or took too long.
    """
    program = shutil.which(command[0])
    if program is None:
        raise HookFailed(f"there is no program {command[0]}")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _INHERITED or name.startswith("LC_")
    }
    said: list[str] = []

    def note(line: bytes) -> None:
        text = redact_url(line.decode(errors="replace"))
        logger.info("%s: %s", command[0], text)
        said.append(text)
        del said[:-5]

    try:
        ended = run_child(
            [os.path.abspath(program), *command[1:]],
            environment={**environment, **variables},
            on_output=note,
            on_error=note,
            stop=stop,
            time_limit=time_limit,
            grace=10.0,
        )
    except OSError as error:
        raise HookFailed(f"{command[0]} cannot be run: {error.strerror}") from error
    if ended.timed_out:
        raise HookFailed(f"{command[0]} took longer than {time_limit:g} s")
    if ended.status:
        how = f"ended with status {ended.status}" if ended.status > 0 else "was ended"
        last = " / ".join(said)[-_MOST_SAID:]
        raise HookFailed(f"{command[0]} {how}" + (f": {last}" if last else ""))
