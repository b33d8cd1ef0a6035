"""Secrets in settings: where they come from, and how they stay out of everything printed.

In a settings file a secret is one of

    password = "hunter2"                           # literal; keep the file to yourself (0600)
    password = { file = "/etc/backupgw/password" }
    password = { env = "RESTIC_PASSWORD" }
    password = { command = ["pass", "show", "backup"] }

All but the literal are read when `Secret.reveal` is called, not when the settings are loaded.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

from .command import CommandError
from .small_file import read_small_file

HIDDEN = "***"
COMMAND_TIMEOUT = 30.0
"""Seconds that a secret's command may take."""
MAX_FILE_BYTES = 64 << 10

_log = logging.getLogger(__name__)


class SecretError(CommandError):
    """A secret cannot be had; the message names the file, variable or command, never the secret."""


class Secret:
    """A string that shows itself only to `reveal`.

    `str`, `repr`, JSON and comparisons in a test's output show `***`. Pickling carries it whole,
    because settings are handed to worker processes through a pipe.
    """

    __slots__ = ("_kind", "_source")

    _kind: str
    _source: str | tuple[str, ...]
    KINDS: ClassVar[tuple[str, ...]] = ("file", "env", "command")

    def __init__(self, literal: str) -> None:
        self._kind = "literal"
        self._source = literal

    @classmethod
    def from_file(cls, path: str) -> Secret:
        """The content of a file, one trailing newline stripped."""
        return cls._make("file", path)

    @classmethod
    def from_command(cls, command: list[str]) -> Secret:
        """What a command prints, one trailing newline stripped. It is not run by a shell."""
        return cls._make("command", tuple(command))

    @classmethod
    def _make(cls, kind: str, source: str | tuple[str, ...]) -> Secret:
        secret = cls.__new__(cls)
        secret._kind = kind
        secret._source = source
        return secret

    @classmethod
    def parse(cls, value: object) -> Secret:
        """Read a secret as a settings file has it.

        Raises:
            ValueError: it is none of the four forms. The message does not repeat the value.
        """
        if isinstance(value, Secret):
            return value
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in cls.KINDS:
            raise ValueError(
                f"{_not_a_secret(value)}; write a string, "
                '{ file = "PATH" }, { env = "NAME" } or { command = ["PROGRAM", "ARGUMENT"] }'
            )
        kind, source = next(iter(value.items()))
        if kind == "command":
            if isinstance(source, str):
                raise ValueError(
                    'has a command in one string; write a list, ["PROGRAM", "ARGUMENT"]: no '
                    "shell reads it"
                )
            if not isinstance(source, list) or not source or not _all_text(source):
                raise ValueError("has a command that is not a list of strings")
            return cls.from_command(source)
        if not isinstance(source, str) or not source or "\0" in source:
            raise ValueError(f"has no name after {kind} =")
        return cls._make(kind, source)

    @property
    def literal(self) -> bool:
        """The secret itself stands in the settings."""
        return self._kind == "literal"

    @property
    def file(self) -> str | None:
        """The file that holds the secret, None where it comes from elsewhere."""
        return self._source if self._kind == "file" and isinstance(self._source, str) else None

    @property
    def origin(self) -> str:
        """Where the secret comes from, safe to print: `file /etc/x`, `env NAME`, `command pass`."""
        if self._kind == "literal":
            return "literal"
        # Arguments of a command may carry tokens; its name does not.
        source = self._source if isinstance(self._source, str) else self._source[0]
        return f"{self._kind} {source}"

    def reveal(self) -> str:
        """Return the secret, read afresh: call once where it is used, not once per request.

        Raises:
            SecretError: the file, the variable or the command does not give one.
        """
        match self._kind:
            case "literal":
                assert isinstance(self._source, str)
                return self._source
            case "file":
                assert isinstance(self._source, str)
                return _read_file(self._source)
            case "env":
                assert isinstance(self._source, str)
                try:
                    return os.environ[self._source]
                except KeyError:
                    raise SecretError(
                        f"the environment variable {self._source}, which should hold a secret, "
                        "is not set"
                    ) from None
            case _:
                return _run_command(tuple(self._source))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return (self._kind, self._source) == (other._kind, other._source)

    def __hash__(self) -> int:
        return hash((self._kind, self._source))

    def __repr__(self) -> str:
        return f"Secret({HIDDEN if self.literal else self.origin!r})"

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._kind, self._source)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.parse,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda _: HIDDEN, when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1}
        forms: dict[str, dict[str, Any]] = {
            "file": text,
            "env": text,
            "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        }
        return {
            "title": "Secret",
            "anyOf": [
                {"type": "string"},
                *(
                    {
                        "type": "object",
                        "properties": {kind: form},
                        "required": [kind],
                        "additionalProperties": False,
                    }
                    for kind, form in forms.items()
                ),
            ],
        }


def _restore(kind: str, source: str | tuple[str, ...]) -> Secret:
    return Secret._make(kind, source)


def _all_text(values: list[object]) -> bool:
    return all(isinstance(value, str) and "\0" not in value for value in values)


def _read_file(path: str) -> str:
    try:
        content, status, _ = read_small_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise SecretError(f"cannot read the secret file {path}: {error.strerror}") from error
    if status.st_mode & 0o077:
        _warn_open_file(path, stat.S_IMODE(status.st_mode))
    return _text(content, f"the secret file {path}")


@functools.lru_cache(maxsize=256)
def _warn_open_file(path: str, mode: int) -> None:
    """Warn once for each file and mode, however often it is read."""
    if mode & 0o044:
        _log.warning("others can read the secret file %s (mode %04o); chmod 600 it", path, mode)
    else:
        _log.warning("others can change the secret file %s (mode %04o); chmod 600 it", path, mode)


def _run_command(command: tuple[str, ...]) -> str:
    name = command[0]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        # Not chained: the exception carries the output, which is the secret.
        raise SecretError(
            f"the secret's command {name} took longer than {COMMAND_TIMEOUT:.0f} s"
        ) from None
    except OSError as error:
        raise SecretError(f"cannot run the secret's command {name}: {error.strerror}") from error
    if done.returncode != 0:
        complaint = " ".join(done.stderr.decode(errors="replace").split())[:500]
        raise SecretError(
            f"the secret's command {name} ended with status {done.returncode}"
            + (f": {redact_url(complaint)}" if complaint else "")
        )
    return _text(done.stdout, f"the output of the secret's command {name}")


def _text(content: bytes, what: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{what} is not UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretError(f"{what} is empty")
    return text


# An unencoded "/" in a password is not a valid URL, yet S3 keys have them and people paste them:
# after `user:` anything up to an `@` is taken for the password, but for digits and a "/", which
# are a port and a path. Bounded repeats: what is logged may be chosen by an attacker.
_USERINFO = re.compile(
    r"""(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]{0,30}:)(?P<slashes>(?://)?)
        (?: [^\s:/?\#@"'<>`]{0,256} : (?!//) (?!\d{1,5}/) [^\s"'<>`]{0,1024} @
          | (?<=//) [^\s/?\#"'<>`]{0,1024} @ )""",
    re.VERBOSE,
)
_PARAMETERS = re.compile(r"""(\brclone::?[\w.+@-]*),(?:[^:\s"']|"[^"]*"|'[^']*')*:""")
"""Those of an rclone remote: `rclone::s3,secret_access_key=…:bucket`."""
_WORD = re.compile(r"""[^\s"'<>`]+""")


def redact_url(text: str) -> str:
    """Return `text` with user, password and query string of every URL in it hidden.

    borgstore's `s3:KEY:SECRET@http://…` counts as a URL, and so does `rclone::s3,key=…:bucket`, of
    which the parameters are hidden. Text without one comes back unchanged.
    """
    if ":" not in text:
        return text
    if "rclone:" in text:
        text = _PARAMETERS.sub(rf"\1,{HIDDEN}:", text)
    if "@" in text:
        text = _USERINFO.sub(rf"\g<scheme>\g<slashes>{HIDDEN}@", text)
    if "?" in text and "://" in text:
        text = _WORD.sub(_without_query, text)
    return text


def _without_query(word: re.Match[str]) -> str:
    text = word.group()
    mark = text.find("?", text.find("://") + 1) if "://" in text else -1
    return text if mark < 0 or mark + 1 == len(text) else f"{text[:mark]}?{HIDDEN}"


_NAMES = re.compile(
    r"pass(word|phrase|wd)?$|secret|token|credential|private_?key|api_?key|access_?key|"
    r"application_?key|^authorization$|^cookie$",
    re.IGNORECASE,
)
_NOT_NAMES = re.compile(r"_(file|path|env|command|id|url|timeout)$", re.IGNORECASE)


def _not_a_secret(value: object) -> str:
    """Tell what a value is that is none of a secret's forms. Only what is nearly one of their keys
    is repeated."""
    if not isinstance(value, dict):
        return "is not a secret"
    if len(value) > 1 and value.keys() <= set(Secret.KINDS):
        return f"has {' and '.join(value)}, where a secret has one of them"
    import difflib

    for key in value:
        close = difflib.get_close_matches(str(key).lower(), Secret.KINDS, n=1)
        if close and key not in Secret.KINDS:
            return f"has {key} =, which is no key of a secret (did you mean {close[0]}?)"
    return "has a table that is not a secret's"


def names_secret(key: str) -> bool:
    """Whether a setting or log field of this name is to be kept hidden."""
    return bool(_NAMES.search(key)) and not _NOT_NAMES.search(key)
