"""Where a repository is and what opens it, and how restic is told without anybody else seeing it.

Address and password reach restic as files without a name (memfd_create(2)): they are not on its
command line, not in its environment, and not on a disk. The environment matters because restic
expands variables in files of exclude patterns, which are a customer's to write.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from ..secrets import HIDDEN, names_secret, redact_url

_INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|TZ|SSH_AUTH_SOCK|XDG_CONFIG_HOME|SSL_CERT_(?:FILE|DIR)|"
    r"RCLONE_\w+|GODEBUG|(?:https?|no|all)_proxy|(?:HTTPS?|NO|ALL)_PROXY"
)
_CREDENTIALS = re.compile(r"//([^/@\s]*)@")
_CREDENTIAL_FILES = {
    "s3": ("AWS_SHARED_CREDENTIALS_FILE",),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
}
_SCHEME = re.compile(r"(?:rest|s3|b2|azure|gs|swift|sftp|rclone):")
_SHORTEST = 4
"""Characters; hiding every "a" in a message would hide the message."""


@dataclass(frozen=True)
class Repository:
    """A repository of restic's.

    Attributes:
        url: as restic takes it: "/srv/r", "s3:https://host/bucket", "rest:http://u:p@host/r/".
        password: None for a repository without one (0.17 and newer).
        environment: what restic's place needs: AWS_ACCESS_KEY_ID and the like.
        ca_file: PEM file of authorities to trust instead of the system's.
    """

    url: str = field(repr=False)
    password: str | None = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None

    def __post_init__(self) -> None:
        for what, text in (("address", self.url), ("password", self.password or "-")):
            if not text or any(sign in text for sign in "\0\n\r"):
                raise ValueError(f"a repository's {what} is one line, and not empty")

    @property
    def shown(self) -> str:
        """Its address without what is secret."""
        return redact_url(self.url)

    @property
    def folder(self) -> str | None:
        """Where it lies, if that is a folder of this machine; None: elsewhere."""
        path = self.url.removeprefix("local:")
        if path == self.url and _SCHEME.match(path):
            return None
        return os.path.realpath(path)

    def scrub(self, text: str) -> str:
        """Return a text in which none of the repository's secrets is left."""
        for secret in self._secrets():
            text = text.replace(secret, HIDDEN)
        return redact_url(text)

    def _secrets(self) -> list[str]:
        found = [self.password or ""]
        found += [
            value
            for name, value in self.environment.items()
            if names_secret(name) or name.endswith(("_KEY", "_KEY_ID", "_SAS"))
        ]
        for userinfo in _CREDENTIALS.findall(self.url):
            part = userinfo.partition(":")[2]
            found += [userinfo, part, unquote(part)]
        longest_first = sorted({each for each in found if len(each) >= _SHORTEST}, key=len)
        return longest_first[::-1]

    @contextlib.contextmanager
    def handed_over(self, environ: Mapping[str, str]) -> Iterator[tuple[dict[str, str], list[int]]]:
        """Yield the environment and the descriptors that a restic for this repository gets.

        Args:
            environ: ours, of which a few harmless variables are handed on.
        """
        variables = {name: value for name, value in environ.items() if _INHERITED.fullmatch(name)}
        variables.setdefault("PATH", os.defpath)
        variables.setdefault("HOME", "/")
        variables |= {"LC_ALL": "C.UTF-8", "RESTIC_PROGRESS_FPS": "2"}
        variables |= self.environment
        with contextlib.ExitStack() as stack:
            address = _memory(stack, self.url)
            variables["RESTIC_REPOSITORY_FILE"] = f"/dev/fd/{address}"
            descriptors = [address]
            if self.password is not None and self.password != self.password.strip():
                # restic cuts blanks off at both ends of a file, and not of its variable.
                variables["RESTIC_PASSWORD"] = self.password
            elif self.password is not None:
                password = _memory(stack, self.password)
                variables["RESTIC_PASSWORD_FILE"] = f"/dev/fd/{password}"
                descriptors.append(password)
            for name, path in self._credential_files(variables).items():
                # Whatever restic may open while it reads somebody's files, it is not these.
                with contextlib.suppress(OSError):
                    with open(path, encoding="utf-8") as file:
                        content = _memory(stack, file.read())
                    variables[name] = f"/dev/fd/{content}"
                    descriptors.append(content)
            yield variables, descriptors

    def _credential_files(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the variables that name a file with credentials for the place, with the file."""
        names = _CREDENTIAL_FILES.get(self.url.partition(":")[0], ())
        found = {name: variables[name] for name in names if variables.get(name)}
        ours = "AWS_SHARED_CREDENTIALS_FILE"
        if ours in names and ours not in found and "AWS_ACCESS_KEY_ID" not in variables:
            found[ours] = os.path.join(variables["HOME"], ".aws", "credentials")
        return found

    def options(self) -> Sequence[str]:
        """Return the options that every command for this repository has."""
        found = [] if self.ca_file is None else [f"--cacert={self.ca_file}"]
        return found if self.password is not None else [*found, "--insecure-no-password"]


def _memory(stack: contextlib.ExitStack, content: str) -> int:
    descriptor = os.memfd_create("backupgw", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.write(descriptor, content.encode() + b"\n")
    return descriptor
