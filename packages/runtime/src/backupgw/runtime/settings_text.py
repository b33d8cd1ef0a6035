"""The settings as text: a sample file, the JSON schema of the file, and what is in effect."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from .secrets import HIDDEN, Secret, redact_url
from .services import Service
from .settings import Settings
from .settings_errors import Origin
from .settings_models import LogSettings, PlaceSettings
from .settings_sections import sections as shared_sections

_WIDTH = 96

_HEAD = """\
# Settings of backupgw. Every line that is commented out shows the default.
# Check this file with `backupgw config check`; see what is in effect with `backupgw config show`.
# Each key can also be set in the environment: BACKUPGW_REST__LISTEN for listen in [rest].
# Paths are relative to the folder that backupgw is started in: better write them absolute.

# Where the bytes live. The word after "places." is a name of your choice; services use the place
# named "default" unless told otherwise. Without any, it is the folder ./data.
[places.default]
url = "file:///srv/backups"
# Secrets, where a place needs one, are best kept elsewhere:
#   password = { file = "/etc/backupgw/password" }
#   password = { env = "NAS_PASSWORD" }
#   password = { command = ["pass", "show", "nas"] }
# What lies around the place, outermost first; docs/places.md tells what there is:
#   layers = ["observe", { layer = "throttle", upload = "08:00,2M 19:00,off" }, "retry"]
"""


def sample(services: Mapping[str, Service]) -> str:
    """Return a settings file that is valid as it is and shows every key with its default."""
    parts = [_HEAD, _section("log", LogSettings, "What is logged, to standard error.", ())]
    for name, model in shared_sections().items():
        parts.append(_section(name, model, _first_line(model), ()))
    for name, service in services.items():
        enabled = () if "enabled" in service.settings.model_fields else (service.enabled,)
        parts.append(_section(name, service.settings, _first_line(service.settings), enabled))
    return "\n".join(parts)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().partition("\n")[0]


def _section(name: str, model: type[BaseModel], about: str, enabled: tuple[bool, ...]) -> str:
    lines = [*_comment(about), f"[{name}]"]
    for value in enabled:
        lines += [*_comment("whether `backupgw serve` starts it"), f"# enabled = {toml(value)}"]
    documented = _documented(model)
    for key, field in model.model_fields.items():
        lines += _comment(field.description or documented.get(key, ""))
        default = field.get_default(call_default_factory=True, validated_data={})
        if field.is_required() or default is None:
            lines.append(f"# {key} =")
        else:
            lines.append(f"# {key} = {toml(default, octal=_is_mode(key))}")
    return "\n".join(lines) + "\n"


def _documented(model: type[BaseModel]) -> dict[str, str]:
    """Return what the "Attributes:" of a model's docstring say, by key."""
    _, _, attributes = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:\n")
    return {
        match[1]: " ".join(match[2].split()).removesuffix(".")
        for match in re.finditer(r"^    (\w+): (.+(?:\n {5,}.+)*)", attributes, re.MULTILINE)
    }


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")


def _is_mode(key: str) -> bool:
    return key.endswith("mode")


def toml(value: Any, *, octal: bool = False) -> str:
    """Write a value as TOML. Secrets are hidden."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and octal:
        return f"0o{value:o}"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, Secret):
        return json.dumps(HIDDEN) if value.literal else f'"{HIDDEN}" ({value.origin})'
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(toml(item, octal=octal) for item in value)}]"
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        # TOML has no word for nothing.
        there = {key: item for key, item in value.items() if item is not None}
        inner = ", ".join(f"{key} = {toml(item)}" for key, item in there.items())
        return f"{{ {inner} }}" if inner else "{}"
    if value is None:
        return "(none)"
    # TOML's basic strings are JSON's, but for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def schema(services: Mapping[str, Service]) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of the settings file, for editors."""
    definitions: dict[str, Any] = {}
    sections: dict[str, Any] = {}
    models: dict[str, type[BaseModel]] = {
        "log": LogSettings,
        "place": PlaceSettings,
        **shared_sections(),
    }
    models |= {name: service.settings for name, service in services.items()}
    for name, model in models.items():
        # Models of two sections may have one name.
        part = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        found = part.pop("$defs", {})
        definitions |= {f"{name}.{inner}": each for inner, each in found.items()}
        for key, text in _documented(model).items():
            if key in part.get("properties", {}):
                part["properties"][key].setdefault("description", text)
        sections[name] = part
    for name, service in services.items():
        sections[name].setdefault("properties", {}).setdefault(
            "enabled",
            {
                "type": "boolean",
                "default": service.enabled,
                "description": "whether `backupgw serve` starts it",
            },
        )
    place = sections.pop("place")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of backupgw",
        "type": "object",
        "properties": {
            "places": {
                "type": "object",
                "description": "where bytes live, by name",
                "propertyNames": {"pattern": "^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$"},
                "additionalProperties": place,
            },
            **sections,
        },
        "additionalProperties": False,
        "$defs": definitions,
    }


def in_effect(settings: Settings) -> Iterator[tuple[tuple[str, ...], Any, Origin]]:
    """Yield key, value and where it was set, for every value. Secrets are `Secret`s still."""
    for name, place in settings.places.items():
        yield ("places", name, "url"), redact_url(place.url), settings.origin("places", name, "url")
        if place.layers:
            origin = settings.origin("places", name, "layers")
            yield ("places", name, "layers"), place.layers, origin
        for key, value in (place.__pydantic_extra__ or {}).items():
            yield ("places", name, key), value, settings.origin("places", name, key)
    for section, model in {"log": settings.log, **settings.gateway, **settings.sections}.items():
        if section in settings.sections and "enabled" not in type(model).model_fields:
            origin = settings.origin(section, "enabled")
            yield (section, "enabled"), section in settings.enabled, origin
        for key, value in model:
            yield (section, key), value, settings.origin(section, key)


def plain(value: Any) -> Any:
    """Return a value as JSON can have it. Secrets are hidden."""
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_url(str(value))


def show(settings: Settings) -> str:
    """Return what is in effect, as TOML with where each value was set behind it."""
    lines: list[str] = []
    table: tuple[str, ...] = ()
    for key, value, origin in in_effect(settings):
        if key[:-1] != table:
            table = key[:-1]
            lines += ([""] if lines else []) + [f"[{'.'.join(table)}]"]
        comment = value is None or (isinstance(value, Secret) and not value.literal)
        text = f"{key[-1]} = {redact_url(toml(value, octal=_is_mode(key[-1])))}"
        lines.append(f"{'# ' if comment else ''}{text}".ljust(47) + f" # {origin}")
    return "\n".join(lines)
