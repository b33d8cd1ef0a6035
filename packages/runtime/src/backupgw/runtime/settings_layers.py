"""`layers` of `[places.NAME]`: what lies around a place's backend, outermost first.

    [places.main]
    url = "file:///srv/backups"
    layers = [
        "observe",
        { layer = "throttle", upload = "08:00,2M 19:00,off" },
        { layer = "retry", attempts = 5 },
    ]

or, longer, `[[places.main.layers]]` with `layer = "throttle"` below. What a layer's option `places`
holds are names of other places. Everything that can be wrong is found when the settings are
loaded, but for what a secret in a file, a variable or a command turns out to be: these are read
when the place is made, by `config check` too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from .secrets import Secret, names_secret
from .settings_errors import did_you_mean

if TYPE_CHECKING:
    from backupgw.kvstore.backends.base import Backend

    from .settings_models import PlaceSettings

Mistake = tuple[tuple[str | int, ...], str]
"""The key below `places` and what is wrong there."""


@dataclass(frozen=True)
class _Table:
    """A table under a secret's name."""

    value: dict[str, object] = field(repr=False)


def secret_option(value: object) -> object:
    """Read `{ file = … }`, `{ env = … }` and `{ command = … }` among options.

    Raises:
        ValueError: under a secret's name, a table is something else (`Secret.parse`).
    """
    if isinstance(value, _Table):
        return Secret.parse(value.value)
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in Secret.KINDS:
        return Secret.parse(value)
    return value


def hide_secrets(values: Mapping[str, object]) -> dict[str, object]:
    """Return options in which text under a secret's name is a Secret, and a table is marked for
    `secret_option`, which has it told of under its own key."""
    return {name: _hidden(value) if _is_secret(name) else value for name, value in values.items()}


def _hidden(value: object) -> object:
    if isinstance(value, str):
        return Secret(value)
    return _Table(value) if isinstance(value, dict) else value


def _is_secret(name: str) -> bool:
    return names_secret(name) or name == "key"  # elsewhere a key may be any name; here it opens


class LayerSettings(BaseModel):
    """A layer of a place. What is not `layer` is the layer's own option."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(secret_option)]]

    layer: str = Field(min_length=1, description="which layer, such as retry")

    @model_validator(mode="before")
    @classmethod
    def _hide(cls, values: object) -> object:
        return hide_secrets(values) if isinstance(values, Mapping) else values

    @property
    def options(self) -> dict[str, Any]:
        """The layer's options; secrets as Secret."""
        return dict(self.__pydantic_extra__ or {})

    def spec(self, secret: Callable[[Secret], str]) -> dict[str, object]:
        """Return the layer as `open_place` takes it.

        Args:
            secret: what to put in a secret's place.
        """
        options = {
            name: secret(value) if isinstance(value, Secret) else value
            for name, value in self.options.items()
        }
        return {"layer": self.layer, **options}


def _named(value: object) -> object:
    return {"layer": value} if isinstance(value, str) else value


LayerSetting = Annotated[
    LayerSettings,
    BeforeValidator(_named),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "properties": {"layer": {"type": "string", "minLength": 1}},
                    "required": ["layer"],
                },
            ]
        }
    ),
]
"""`"readonly"`, or a table with the options."""


def mistakes(places: Mapping[str, PlaceSettings | None]) -> Iterator[Mistake]:
    """Yield everything that is wrong with the layers of all places.

    Args:
        places: by name; None for one whose section is wrong in itself.
    """
    for name, place in places.items():
        if place is not None and place.layers:
            yield from _wrong_stack(name, place.layers)
            yield from _wrong_places(name, place.layers, places)


def _wrong_stack(name: str, layers: Sequence[LayerSettings]) -> Iterator[Mistake]:
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.layers import stack

    specs = [layer.spec(_unread) for layer in layers]
    told = set()
    try:
        for mistake in stack.mistakes(specs):
            told.add(mistake.index)
            option = () if mistake.option is None else (mistake.option,)
            yield (name, "layers", mistake.index, *option), mistake.message
    except BackendError:
        told = set()  # a library is missing: the layers one by one tell which
    for index, spec in enumerate(specs):
        unread = any(
            isinstance(o, Secret) and not o.literal for o in layers[index].options.values()
        )
        if index not in told and not unread:
            yield from _wrong_values(name, index, spec)


def _unread(secret: Secret) -> str:
    """Literal secrets are looked at here; the others when they are used, and not before."""
    return secret.reveal() if secret.literal else ""


def _wrong_values(name: str, index: int, spec: Mapping[str, object]) -> Iterator[Mistake]:
    """Make the layer, which opens nothing, around nothing."""
    from backupgw.kvstore.backends.errors import BackendError
    from backupgw.kvstore.backends.memory import Memory
    from backupgw.kvstore.layers.stack import LayerInvalid, stacked

    def no_place(url: str, **_: object) -> Backend:  # noqa: ARG001 - the signature is OpenPlace's
        return Memory()

    context = {"name": name, "state_folder": "/nonexistent"}
    try:
        stacked(Memory(), [spec], context=context, open_place=no_place)
    except LayerInvalid as mistake:
        option = () if mistake.option is None else (mistake.option,)
        yield (name, "layers", index, *option), mistake.message
    except (BackendError, ValueError, TypeError) as error:
        yield (name, "layers", index), str(error)


def _wrong_places(
    name: str, layers: Sequence[LayerSettings], places: Mapping[str, PlaceSettings | None]
) -> Iterator[Mistake]:
    for index, layer in enumerate(layers):
        for number, other in enumerate(named_places(layer)):
            key = (name, "layers", index, "places", number)
            if not isinstance(other, str) or other not in places:
                known = places.keys() - {name}
                yield key, f"there is no [places.{other}]; {did_you_mean(str(other), known)}"
            elif other == name or name in _reached(other, places):
                yield key, f"leads back to {name} itself; name another place"


def named_places(layer: LayerSettings) -> Sequence[object]:
    """Return the places that a layer names; what is no list is told elsewhere."""
    named = layer.options.get("places", ())
    return named if isinstance(named, list | tuple) else ()


def mirrored_places(name: str, layers: Sequence[LayerSettings]) -> list[str]:
    """Return the names of a mirror's places in their order, the place `name` itself first.

    Empty where none of the layers is a mirror.
    """
    for layer in layers:
        if layer.layer == "mirror":
            return [name, *map(str, named_places(layer))]
    return []


def _reached(start: str, places: Mapping[str, PlaceSettings | None]) -> set[str]:
    """Return the places that `start` uses, directly or not."""
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        place = places.get(open_ends.pop())
        for layer in place.layers if place is not None else ():
            for other in named_places(layer):
                if isinstance(other, str) and other not in found:
                    found.add(other)
                    open_ends.append(other)
    return found


def specs(
    layers: Sequence[LayerSettings], open_named: Callable[[str], Backend]
) -> list[dict[str, object]]:
    """Return layers as `open_place` takes them, secrets revealed.

    Args:
        open_named: makes a place by its name in the settings.

    Raises:
        SecretError: a secret cannot be had.
    """
    found = []
    for layer in layers:
        spec = layer.spec(Secret.reveal)
        if places := named_places(layer):
            spec["places"] = [open_named(str(place)) for place in places]
        found.append(spec)
    return found
