"""The settings of a gateway, read once at the edge and passed down as typed values.

    settings = load(arguments.config, {"rest.listen": arguments.listen})
    options = settings.section("rest", RestSettings)
    backend = settings.open_place(options.place)

Precedence: flag, environment (`BACKUPGW_REST__LISTEN`, `__` between levels), file, an etcd where
one is named, default. With nothing configured there is one place, "default", the folder `data`
beneath the working directory.
Everything here can be pickled: worker processes get the settings of the process that started them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote, urlsplit

from pydantic import BaseModel, ValidationError

from . import place_claims, settings_layers
from .named_places import PLACE_NAME, NamedPlaces, path_of
from .secrets import Secret
from .services import Service, installed_services
from .settings_auth import AuthSettings
from .settings_errors import (
    DEFAULT,
    Issue,
    Key,
    Origin,
    SettingsError,
    did_you_mean,
    dotted,
    explain,
)
from .settings_file import find, read
from .settings_models import LogSettings, PlaceSettings
from .settings_sections import sections as shared_sections
from .settings_sources import PREFIX, SEPARATOR, Flag, Sources

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend

__all__ = ["Flag", "LogSettings", "PlaceSettings", "Settings", "SettingsError", "load"]

Section = TypeVar("Section", bound=BaseModel)


@dataclass(frozen=True)
class Settings:
    """All settings, checked.

    Attributes:
        places: by name.
        log: section `[log]`.
        sections: each installed service's section, by the service's name.
        enabled: names of the services that `backupgw serve` starts.
        config: the settings file that was read, None if there was none.
        origins: where each value that is not a default was set.
        warnings: lines for the operator; nothing that keeps a gateway from starting.
        gateway: the sections of `settings_sections`, by name.
    """

    places: Mapping[str, PlaceSettings]
    log: LogSettings
    sections: Mapping[str, BaseModel]
    enabled: frozenset[str]
    config: Path | None
    origins: Mapping[Key, Origin]
    warnings: tuple[str, ...]
    gateway: Mapping[str, BaseModel] = field(default_factory=dict)

    @overload
    def section(self, name: str) -> Any: ...

    @overload
    def section(self, name: str, kind: type[Section]) -> Section: ...

    def section(self, name: str, kind: type[BaseModel] | None = None) -> Any:
        """Return a section of a service or of the gateway, an instance of its settings model.

        Args:
            kind: that model, for the type checker's sake.

        Raises:
            KeyError: no service of that name is installed.
        """
        section = self.gateway[name] if name in self.gateway else self.sections[name]
        if kind is not None and not isinstance(section, kind):
            raise TypeError(f"[{name}] is a {type(section).__name__}, not a {kind.__name__}")
        return section

    def origin(self, *key: str | int) -> Origin:
        """Return where a value was set: `settings.origin("rest", "listen")`."""
        return self.origins.get(key, DEFAULT)

    def mistake(self, message: str, *key: str | int) -> SettingsError:
        """Return an error about the value at `key`, told with where it was set, to be raised.

        For what only a service can judge: `raise settings.mistake("needs a password file; …",
        "rest", "listen")`.
        """
        return SettingsError(Issue(self.origin(*key), dotted(key), message))

    def open_place(self, name: str) -> Backend:
        """Return a place, its backend with the layers around it, not yet open.

        Raises:
            KeyError: no such place.
            SecretError: one of its secrets cannot be had.
            BackendError: its URL or options are not what the backend or a layer takes.
        """
        from backupgw.kvstore.registry import open_place

        place = self.places[name]
        around = partial(place_claims.claimed, self, place)
        if not place.layers:
            return open_place(place.url, around=around, **place.options())
        return open_place(
            place.url,
            layers=settings_layers.specs(place.layers, self.open_place),
            context=self._context(name),
            around=around,
            **place.options(),
        )

    def _context(self, name: str) -> Mapping[str, object]:
        """Return what layers are given that can use it; see `backupgw.kvstore.layers.stack`."""
        from . import state_folder
        from .place_metrics import count_operation

        context: dict[str, object] = {
            "name": name,
            "state_folder": str(state_folder.find(self) / "places" / name),
            "on_operation": count_operation,
        }
        if mirrored := settings_layers.mirrored_places(name, self.places[name].layers):
            from .mirror_watch import MirrorWatch

            context["on_change"] = MirrorWatch(name, mirrored)
        return context


def load(
    config: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    services: Mapping[str, Service] | None = None,
    serving: Collection[str] | None = None,
    only: Collection[str] | None = None,
) -> Settings:
    """Read and check the settings.

    Args:
        config: the settings file; None searches for it (`settings_file.find`).
        overrides: what flags say, by dotted key or as nested mappings; a value may be a `Flag`,
            which knows the flag's name. None as a value means that the flag was not given.
        environ: default `os.environ`.
        services: default all that are installed.
        serving: those whose place must be there; default the enabled ones. None of them for
            commands that serve nothing.
        only: the gateway's sections that are wanted; all others, and the services' own, are neither
            imported nor checked, which takes the time of a short command. Default: everything.

    Raises:
        SettingsError: with every mistake that there is, not only the first.
    """
    environ = os.environ if environ is None else environ
    if services is None:
        services = installed_services() if only is None else {}
    path = find(config, environ)
    sources = Sources(read(path) if path else None)
    named = NamedPlaces(path_of(config, environ))
    sources.add_places(named.read(), str(named.path))
    sources.add_environment(environ)
    sources.add_overrides(overrides or {})
    if sources.values.get("etcd"):
        from .settings_etcd import add_etcd

        add_etcd(sources)
    return _Check(sources, services, environ, serving, only).settings(path)


class _Check:
    """One pass over all sections that gathers what is wrong."""

    def __init__(
        self,
        sources: Sources,
        services: Mapping[str, Service],
        environ: Mapping[str, str],
        serving: Collection[str] | None,
        only: Collection[str] | None,
    ) -> None:
        self._sources = sources
        self._only = only
        self._services = services
        self._environ = environ
        self._serving = serving
        self._issues: list[Issue] = []
        self._warnings: list[str] = []

    def settings(self, path: Path | None) -> Settings:
        if self._only is None:
            self._check_names()
        places = self._places()
        log = self._section(("log",), LogSettings, self._table("log"))
        gateway: dict[str, BaseModel] = {}
        for name, model in shared_sections(self._only).items():
            if (found := self._section((name,), model, self._table(name))) is not None:
                gateway[name] = found
        self._check_rules(gateway.get("auth"), places)
        sections: dict[str, BaseModel] = {}
        enabled = set()
        for name, service in self._services.items():
            table = dict(self._table(name))
            if self._enabled(service, table):
                enabled.add(name)
            section = self._section((name,), service.settings, table)
            if section is not None:
                sections[name] = section
                used = enabled if self._serving is None else self._serving
                self._check_place(name, section, places, used=name in used)
        if self._issues:
            issues = sorted(dict.fromkeys(self._issues), key=lambda issue: issue.origin.line)
            raise SettingsError(*issues)
        assert log is not None
        self._warn(places, gateway | sections)
        return Settings(
            places={name: place for name, place in places.items() if place is not None},
            log=log,
            sections=sections,
            enabled=frozenset(enabled),
            config=path,
            origins={key: self._sources.origin(key) for key in _keys(self._sources.values, ())},
            warnings=tuple(self._warnings),
            gateway=gateway,
        )

    def _say(self, key: Key, message: str) -> None:
        self._issues.append(Issue(self._sources.origin(key), dotted(key), message))

    def _check_names(self) -> None:
        known = {"places", "log", *shared_sections(), *self._services}
        for name in self._sources.values.keys() - known:
            missing = "no installed package has such settings"
            self._say((name,), f"{missing}; {did_you_mean(name, known)}")
        fields: dict[str, type[BaseModel]] = {"log": LogSettings, **shared_sections()}
        fields |= {s.name: s.settings for s in self._services.values()}
        for variable in self._environ:
            if not variable.startswith(PREFIX) or SEPARATOR in variable:
                continue
            # Only names that would be settings: others may set BACKUPGW_… for reasons of theirs.
            section, _, field = variable.removeprefix(PREFIX).lower().partition("_")
            if section in fields and field in fields[section].model_fields:
                right = f"{PREFIX}{section.upper()}{SEPARATOR}{field.upper()}"
                self._issues.append(
                    Issue(
                        Origin("environment", variable),
                        "",
                        f"needs two underscores after the section; rename it to {right}",
                    )
                )

    def _table(self, *key: str) -> Mapping[str, Any]:
        value: Any = self._sources.values
        for part in key:
            value = value.get(part, {})
        if isinstance(value, Mapping):
            return value
        self._say(key, f"must be a table; write [{dotted(key)}] and its keys below")
        return {}

    def _places(self) -> dict[str, PlaceSettings | None]:
        tables = self._table("places")
        if "places" in self._sources.values and not isinstance(
            self._sources.values["places"], Mapping
        ):
            return {"default": None}  # told already; what refers to places is not to blame
        if not tables.keys() - self._sources.named:
            # Backends that were named beside the settings are no settings.
            default = {"url": f"file://{quote(str(Path.cwd() / 'data'))}"}
            tables = {"default": default, **tables}
        places = {name: self._place(name, tables[name]) for name in tables}
        for key, message in settings_layers.mistakes(places):
            self._say(("places", *key), message)
        return places

    def _place(self, name: str, table: object) -> PlaceSettings | None:
        key = ("places", name)
        if not PLACE_NAME.match(name):
            self._say(key, "a place's name has lower-case letters, digits, - and _ only; rename it")
        if isinstance(table, str):
            self._say(key, f'must be a table; write [places.{name}] and url = "…" below')
            return None
        return self._section(key, PlaceSettings, table)

    def _enabled(self, service: Service, table: dict[str, Any]) -> bool:
        if "enabled" in service.settings.model_fields:
            return bool(table.get("enabled", service.enabled))
        value = table.pop("enabled", service.enabled)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"  # from the environment
        if not isinstance(value, bool):
            self._say((service.name, "enabled"), "must be true or false")
            return False
        return value

    def _section(self, key: tuple[str, ...], model: type[Section], table: object) -> Section | None:
        try:
            return model.model_validate(table)
        except ValidationError as error:
            told = set()
            for detail in error.errors(include_url=False):
                place = self._existing(key, detail["loc"], missing=detail["type"] == "missing")
                # What is wrong with a table as a whole begins with the key that it is about.
                about = str(detail.get("ctx", {}).get("error", "")).partition(" ")[0]
                if place == key and isinstance(table, Mapping) and about in table:
                    place = (*key, about)
                # A union reports each of its members; the first says enough.
                if place not in told:
                    told.add(place)
                    self._say(place, explain(detail, model, place))
            return None

    def _existing(self, key: Key, location: tuple[str | int, ...], *, missing: bool) -> Key:
        """Return `location` without what pydantic adds to it (members of unions and the like)."""
        value: Any = self._sources.values
        for part in key:
            value = value.get(part, {}) if isinstance(value, Mapping) else {}
        for number, part in enumerate(location):
            if isinstance(value, Mapping) and part in value:
                value = value[str(part)]
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            elif missing and number == len(location) - 1:
                return (*key, part)
            else:
                break
            key = (*key, part)
        return key

    def _check_place(
        self, name: str, section: BaseModel, places: Mapping[str, object], *, used: bool
    ) -> None:
        place = getattr(section, "place", None)
        if not used or not isinstance(place, str) or place in places:
            return
        advice = did_you_mean(place, places)
        if "place" not in self._table(name):
            advice = f'add place = "…" to [{name}], or enabled = false to serve none; {advice}'
        self._say((name, "place"), f"there is no [places.{place}]; {advice}")

    def _check_rules(self, auth: BaseModel | None, places: Iterable[str]) -> None:
        if isinstance(auth, AuthSettings):
            for key, message in auth.mistakes(places):
                self._say(("auth", *key), message)

    def _warn(
        self, places: Mapping[str, PlaceSettings | None], sections: Mapping[str, BaseModel]
    ) -> None:
        literal = []
        for name, place in places.items():
            if place is None:
                continue
            literal += _literal_secrets(place, ("places", name))
            key = ("places", name, "url")
            if _has_password(place.url):
                literal.append(key)
                self._warnings.append(
                    f"{self._sources.origin(key)}: {dotted(key)}: holds a password; better an "
                    'option of its own, such as password = { file = "/etc/backupgw/password" }'
                )
        for name, section in sections.items():
            literal += _literal_secrets(section, (name,))
        file = self._sources.file
        origins = [self._sources.origin(key) for key in literal]
        if file and file.mode & 0o044 and any(origin.kind == "file" for origin in origins):
            self._warnings.append(
                f"{file.path}: holds secrets and others can read it (mode {file.mode:04o}); "
                f"chmod 600 {file.path}"
            )


def _keys(values: Mapping[str, Any], above: Key) -> Iterator[Key]:
    for name, value in values.items():
        yield (*above, name)
        if isinstance(value, Mapping):
            yield from _keys(value, (*above, name))
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield (*above, name, number)
                if isinstance(item, Mapping):
                    yield from _keys(item, (*above, name, number))


def _literal_secrets(model: BaseModel, above: Key) -> list[Key]:
    found: list[Key] = []
    for name, value in model:
        if isinstance(value, Secret) and value.literal:
            found.append((*above, name))
        elif isinstance(value, BaseModel):
            found += _literal_secrets(value, (*above, name))
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                if isinstance(item, BaseModel):
                    found += _literal_secrets(item, (*above, name, number))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if isinstance(item, Secret) and item.literal:
                    found.append((*above, name, key))
                elif isinstance(item, BaseModel):
                    found += _literal_secrets(item, (*above, name, key))
    return found


def _has_password(url: str) -> bool:
    try:
        return bool(urlsplit(url).password)
    except ValueError:
        return False
