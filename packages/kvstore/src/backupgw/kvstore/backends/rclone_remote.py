"""The URL of an rclone remote, as `rclone` has it on its command line, and what of it is secret.

`rclone:remote:path` names a remote of rclone's settings, `rclone::local:/path` one without
settings; both take parameters after a comma (https://rclone.org/docs/#connection-strings):
`rclone::s3,provider=Ceph,endpoint="https://ceph:8080":bucket/path`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..names import InvalidName, check_folder, joined
from .errors import BackendURLInvalid
from .rclone_names import decoded, encoded

_WRITTEN = "an rclone URL is rclone:remote:path, or rclone::type,parameter=value:path"
_SECRET = re.compile(r"pass|secret|token|key|credential|auth|bearer|cookie", re.IGNORECASE)
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_REMOTE = re.compile(r"[\w.+@][\w.+@ -]*\Z|:[a-z0-9]+\Z")
_WITHIN = re.compile(r"""(\w+)=(?:"((?:[^"]|"")*)"|'((?:[^']|'')*)'|([^"',: ]*))""")
"""A parameter in a connection string that is another one's parameter."""
_SHORTEST = 4
"""Characters that a secret has at least; shorter ones are in every message by chance."""
HIDDEN = "***"


@dataclass(frozen=True, slots=True)
class Remote:
    """A remote and a folder in it.

    Attributes:
        fs: rclone's name for the remote, parameters included, its path "" or "/".
        root: the folder's path below, "" for all of it.
        shown: what messages call it: without parameters.
        secrets: values that no message may hold.
    """

    fs: str = field(repr=False)
    root: str
    shown: str
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The remote's name in rclone's settings, or its type after a colon."""
        return self.shown[: self.shown.index(":", 1)]

    def path(self, name: str) -> str:
        """Return the path below `fs` of an item or folder of the place."""
        return joined(self.root, encoded(name))

    def relative(self, path: str) -> str:
        """Return the place's name of a path below `fs`."""
        return decoded(path.removeprefix(f"{self.root}/") if self.root else path)

    def without_secrets(self, text: str) -> str:
        """Return a message in which no secret is left."""
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return text


def parse(url: str, parameters: Mapping[str, object]) -> Remote:
    """Understand a URL.

    Args:
        parameters: of the remote, beside those in the URL; what rclone's settings would hold.

    Raises:
        BackendURLInvalid: it is none.
    """
    text = url.partition(":")[2]
    if text.startswith("/"):
        text = f":local:{text}"
    name, given, path = cut(text)
    slash = "/" if path.startswith("/") else ""
    root = _tidy(path)
    try:
        check_folder(root)
    except InvalidName as error:
        raise BackendURLInvalid(f"the path of {name}: {error}") from error
    values = {**given, **{key: _value(key, value) for key, value in parameters.items()}}
    for key in values:
        if not _PARAMETER.match(key) or key.startswith("global"):
            raise BackendURLInvalid(f"{name}: no remote has a parameter {key!r}")
    written = "".join(f',{key}="{_quoted(value)}"' for key, value in values.items())
    found = {value for value in _secrets_of(values) if len(value) >= _SHORTEST}
    secrets = sorted(found, key=len, reverse=True)
    forms = dict.fromkeys(form for s in secrets for form in (_quoted(s), s))
    return Remote(f"{name}{written}:{slash}", root, f"{name}:{slash}{root}", tuple(forms))


def _secrets_of(values: Mapping[str, str]) -> Iterator[str]:
    """Yield what is secret of a remote's parameters, and of those of remotes that they name."""
    for key, value in values.items():
        if _SECRET.search(key):
            yield value
        for found in _WITHIN.finditer(value):
            name, double, single, plain = found.groups()
            plain = (double or "").replace('""', '"') or single or plain or ""
            yield from _secrets_of({name: plain})


def behind(remote: Remote, other: str, path: str) -> Remote:
    """Return a folder of the remote that another one stands before.

    Args:
        other: a connection string, or a folder of this machine.
        path: below it.
    """
    try:
        _, _, above = cut(other)
    except BackendURLInvalid:
        return replace(remote, fs=other, root=path)
    start = other[: len(other) - len(above)] + "/" * above.startswith("/")
    return replace(remote, fs=start, root=joined(_tidy(above), path))


def cut(text: str) -> tuple[str, dict[str, str], str]:
    """Return (name, parameters, path) of a connection string. Raises BackendURLInvalid."""
    end = re.search(r"[,:]", text[1:])
    at = end.start() + 1 if end is not None else 0
    name, parameters = text[:at], dict[str, str]()
    if not _REMOTE.match(name):
        raise BackendURLInvalid(_WRITTEN)
    while text[at] == ",":
        match = re.compile(
            r"""([^=,:]+)(?:=(?:"((?:[^"]|"")*)"|'((?:[^']|'')*)'|((?!["'])[^,:]*)))?(?=[,:])"""
        ).match(text, at + 1)
        if match is None:
            raise BackendURLInvalid(f"{name}: its parameters cannot be understood; {_WRITTEN}")
        key, double, single, plain = match.groups()
        if double is not None:
            parameters[key] = double.replace('""', '"')
        elif single is not None:
            parameters[key] = single.replace("''", "'")
        else:
            parameters[key] = "true" if plain is None else plain
        at = match.end()
    return name, parameters, text[at + 1 :]


def _tidy(path: str) -> str:
    return "/".join(segment for segment in path.split("/") if segment not in ("", "."))


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise BackendURLInvalid(f"the parameter {key} is text, a number, true or false")


def _quoted(value: str) -> str:
    return value.replace('"', '""')
