"""Mistakes in the settings: where each value came from, and how a mistake is told.

Every mistake is one line, `WHERE: section.key: what is wrong; what to do`, where WHERE is
`FILE:LINE`, the name of an environment variable, a flag or a key in etcd.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from .command import CommandError, Exit
from .secrets import Secret, names_secret, redact_url

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

Key = tuple[str | int, ...]
"""The way to a value: sections, keys, and numbers within lists."""


@dataclass(frozen=True)
class Origin:
    """Where a value was set.

    Attributes:
        kind: which of the sources.
        where: the file, the variable, the flag or the key; empty for a default.
        line: of the file, from 1; 0 where it is not known.
    """

    kind: Literal["flag", "environment", "file", "etcd", "default"]
    where: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "default":
            return "default"
        return f"{self.where}:{self.line}" if self.line else self.where


DEFAULT = Origin("default")


@dataclass(frozen=True)
class Issue:
    """One mistake. `key` is dotted; empty where the source as a whole is wrong."""

    origin: Origin
    key: str
    message: str

    def __str__(self) -> str:
        where = "settings" if self.origin.kind == "default" else str(self.origin)
        return ": ".join(part for part in (where, self.key, self.message) if part)


class SettingsError(CommandError):
    """The settings cannot be used; `str()` has one line for each of `issues`.

    A service's `prepare` may raise it with a plain message.
    """

    status = Exit.FAILED
    located = True

    def __init__(self, *issues: Issue | str) -> None:
        self.issues = tuple(
            Issue(DEFAULT, "", issue) if isinstance(issue, str) else issue for issue in issues
        )
        super().__init__("\n".join(str(issue) for issue in self.issues))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.issues


def dotted(key: Key) -> str:
    """Write a key as a person reads it: `places.nas.url`, `rest.listen[0]`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?`, or the list of what is known, or nothing if nothing is."""
    known = sorted(known)
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(known)}" if known else ""


def shown(key: Key, value: object) -> str:
    """Write a wrong value for a message, unless it may be a secret."""
    private = any(isinstance(part, str) and names_secret(part) for part in key)
    if private or isinstance(value, Secret | Mapping):
        return "a table" if isinstance(value, Mapping) else "what is written there"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = redact_url(repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def explain(error: ErrorDetails, model: type[BaseModel], key: Key) -> str:
    """Turn one of pydantic's errors about `model` into what is wrong and what to do.

    Args:
        key: the key as the message will show it; it decides whether the value may be repeated.
    """
    location, context = error["loc"], error.get("ctx", {})
    value = shown(key, error.get("input"))
    name = str(location[-1]) if location else ""
    match error["type"]:
        case "extra_forbidden":
            advice = did_you_mean(name, _fields(model, location[:-1]))
            return "is not a setting" + (f"; {advice}" if advice else "; remove it")
        case "missing":
            return f"is missing; add {name} = …"
        case "bool_parsing" | "bool_type":
            return f"must be true or false, not {value}"
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return f"must be a whole number, not {value}"
        case "float_parsing" | "float_type" | "finite_number":
            return f"must be a number, not {value}"
        case "string_type" | "path_type":
            return f"must be text in quotes, not {value}"
        case "list_type" | "tuple_type" | "set_type":
            return f"must be a list, [ … ], not {value}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"must be a table, not {value}"
        case "literal_error" | "enum":
            expected = str(context.get("expected", ""))
            words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
            given = error.get("input")
            close = difflib.get_close_matches(str(given).lower(), words, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            return f"must be {expected}, not {value}{hint}"
        case "greater_than_equal":
            return f"must be at least {context['ge']}, not {value}"
        case "greater_than":
            return f"must be more than {context['gt']}, not {value}"
        case "less_than_equal":
            return f"must be at most {context['le']}, not {value}"
        case "less_than":
            return f"must be less than {context['lt']}, not {value}"
        case "byte_size" | "byte_size_unit":
            return f'must be a number of bytes, such as 500_000_000 or "500 GB", not {value}'
        case "value_error" | "assertion_error":
            return str(context.get("error", error["msg"]))
        case _:
            message = error["msg"]
            return f"{message[:1].lower()}{message[1:]}, not {value}"


def _fields(model: type[BaseModel] | None, location: Sequence[str | int]) -> list[str]:
    """Return what a table may have that lies within a model's."""
    parts = list(location)
    while model is not None and parts:
        field = model.model_fields.get(str(parts.pop(0)))
        model, inside = _model_in(field.annotation if field else None)
        if inside and parts:
            parts.pop(0)  # which of the mapping or the list it is
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the model that an annotation names, and whether it holds several of them."""
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    several = typing.get_origin(annotation) not in (None, Annotated, Union, types.UnionType)
    for part in typing.get_args(annotation):
        model, within = _model_in(part)
        if model is not None:
            return model, several or within
    return None, False
