"""Layers by name, and the one order in which they may lie around a backend.

A layer belongs to the entry-point group `backupgw.layers`. The entry point's name is the layer's,
its value a function

    def from_options(inner: Backend, *, attempts: object = 5, …) -> Backend

whose keyword parameters are the layer's options; others are refused by name. It takes values as
people write them (`layers.options` reads sizes, times and counts, and raises OptionInvalid), and
only makes the object: it opens, creates and connects nothing, since `config check` calls it too.

Three kinds of parameter are more than an option:
- `places: Sequence[Backend]`. In settings these are names of other `[places.NAME]`, in Python
  URLs, mappings with "url" (and "layers" and options) or Backends; the factory gets Backends, and
  its layer opens and closes them.
- what the caller's `context` knows, given where no option says otherwise: `name` (of the place),
  `state_folder` (absolute path of a folder of this place's own for what the layer keeps, a journal
  say; made by the layer when it opens; None where there is none), `on_operation` (observe's hook).
- secrets, in settings written as other secrets are; the factory gets the plain text.

ORDER is the order of DESIGN.md, outermost first. A stack in another order is refused, never
sorted: what somebody wrote and what runs must be the same. A layer of another package says with
`beside("quota")` on its factory which of ORDER's layers it lies directly inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from .. import entry_points
from ..backends.base import Backend
from ..backends.errors import BackendError
from .options import OptionInvalid

GROUP = "backupgw.layers"

ORDER = (
    "observe",
    "readonly",
    "permissions",
    "quota",
    "trash",
    "encrypt",
    "cache",
    "mirror",
    "throttle",
    "retry",
    "prefix",
)
"""Outermost first. Why: what is counted and refused is what the client asked for; what is kept in
the trash counts towards the quota; no plain text lies in a cache or on a mirror; each attempt of a
retry is not throttled anew; a prefix is part of where things lie, so it is innermost."""

LayerSpec = str | Mapping[str, object]
"""A layer's name, or a mapping with the name under "layer" and options beside it."""

Factory = TypeVar("Factory", bound=Callable[..., Backend])


class OpenPlace(Protocol):
    """`registry.open_place`."""

    def __call__(
        self,
        url: str,
        *,
        layers: Sequence[LayerSpec] = (),
        context: Mapping[str, object] | None = None,
        around: Callable[[Backend], Backend] | None = None,
        **options: object,
    ) -> Backend: ...


class LayerInvalid(BackendError):
    """A stack of layers that cannot be.

    Attributes:
        index: which of the layers, from 0, outermost first.
        option: which of its options, None where it is the layer itself.
        message: what is wrong and what to do, without saying where.
    """

    def __init__(self, index: int, name: str, option: str | None, message: str) -> None:
        super().__init__(index, name, option, message)
        self.index = index
        self.name = name
        self.option = option
        self.message = message

    def __str__(self) -> str:
        where = f"layer {self.name}" if self.name else f"layer {self.index + 1}"
        return ": ".join(part for part in (where, self.option, self.message) if part)


def beside(name: str) -> Callable[[Factory], Factory]:
    """Mark the factory of another package's layer: it lies directly inside the layer `name`."""
    if name not in ORDER:
        raise ValueError(f"{name!r} is none of {', '.join(ORDER)}")

    def mark(factory: Factory) -> Factory:
        factory.beside = name  # type: ignore[attr-defined]
        return factory

    return mark


def names() -> list[str]:
    """Return the layers that are registered, in their order."""
    found = entry_points.registered(GROUP, "layer")
    return [name for name in ORDER if name in found] + sorted(found.keys() - set(ORDER))


def options_of(name: str) -> list[str]:
    """Return the names of a layer's options and of what it takes from the context.

    Raises:
        KeyError: no such layer.
        BackendDoesNotExist: a library that it needs is not installed.
    """
    return entry_points.options_of(_factory(name)) or []


def stacked(
    backend: Backend,
    layers: Sequence[LayerSpec],
    *,
    context: Mapping[str, object] | None = None,
    open_place: OpenPlace,
) -> Backend:
    """Return `backend` with layers around it; nothing is opened.

    Args:
        layers: outermost first.
        context: see the top of this module.
        open_place: makes the places that layers name.

    Raises:
        LayerInvalid: the first mistake that `mistakes` finds, or an option's value is none.
        BackendError: another place that a layer names cannot be made.
    """
    for mistake in mistakes(layers):
        raise mistake
    for index, spec in reversed([*enumerate(layers)]):
        name, options = parsed(index, spec)
        factory = _factory(name)
        taken = entry_points.options_of(factory) or []
        given = {key: value for key, value in (context or {}).items() if key in taken}
        given |= options
        if "places" in options:
            given["places"] = _places(index, name, options["places"], open_place)
        try:
            backend = factory(backend, **given)
        except OptionInvalid as error:
            raise LayerInvalid(index, name, error.option, error.message) from error
    return backend


def mistakes(layers: Sequence[LayerSpec]) -> Iterator[LayerInvalid]:
    """Yield what is wrong with a stack, but for the options' values.

    Unknown layers and options, options that are missing, a layer that is there twice, and an order
    that is not the one.

    Raises:
        BackendDoesNotExist: a library that a layer needs is not installed.
    """
    if isinstance(layers, str | Mapping) or not isinstance(layers, Sequence):
        yield LayerInvalid(0, "", None, "the layers are a list, outermost first")
        return
    ranks: dict[str, float] = {}
    known = names()
    for index, spec in enumerate(layers):
        try:
            name, options = parsed(index, spec)
        except LayerInvalid as mistake:
            yield mistake
            continue
        if name not in known:
            message = entry_points.unknown("layer", name, known)
            yield LayerInvalid(index, name, None, message)
            continue
        yield from _wrong_options(index, name, options)
        if name in ranks:
            yield LayerInvalid(index, name, None, "is there twice; keep one")
            continue
        rank = _rank(name)
        outside = [other for other, earlier in ranks.items() if earlier > rank]
        ranks[name] = rank
        if outside:
            right = " · ".join(sorted(ranks, key=ranks.__getitem__))
            yield LayerInvalid(
                index,
                name,
                None,
                f"must lie outside {outside[0]}, and layers are written outermost first; "
                f"the right order: {right}",
            )


def parsed(index: int, spec: LayerSpec) -> tuple[str, dict[str, object]]:
    """Return a layer's name and its options.

    Raises:
        LayerInvalid: it is neither a name nor a mapping with one.
    """
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping):
        name = spec.get("layer")
        if isinstance(name, str):
            return name, {key: value for key, value in spec.items() if key != "layer"}
        message = 'needs a name; write { layer = "NAME", … }'
        raise LayerInvalid(index, "", "layer", message)
    raise LayerInvalid(index, "", None, 'must be "NAME" or { layer = "NAME", option = … }')


def _wrong_options(index: int, name: str, options: Mapping[str, object]) -> Iterator[LayerInvalid]:
    factory = _factory(name)
    taken = entry_points.options_of(factory)
    for option in options:
        if taken is not None and option not in taken:
            message = entry_points.unknown("option", option, taken)
            yield LayerInvalid(index, name, option, message)
    for option in entry_points.required_options(factory):
        if option not in options:
            yield LayerInvalid(index, name, option, f"is missing; add {option} = …")


def _factory(name: str) -> Callable[..., Backend]:
    return entry_points.load(entry_points.registered(GROUP, "layer")[name])


def _rank(name: str) -> float:
    if name in ORDER:
        return ORDER.index(name)
    outer = getattr(_factory(name), "beside", None)
    if outer is None:
        raise BackendError(
            f"the layer {name} does not say where it lies; its package must mark its factory "
            "with layers.stack.beside"
        )
    return ORDER.index(outer) + 0.5


def _places(index: int, name: str, given: object, open_place: OpenPlace) -> list[Backend]:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise LayerInvalid(index, name, "places", f"must be a list of places, not {given!r}")
    found: list[Backend] = []
    for place in given:
        if isinstance(place, Backend):
            found.append(place)
        elif isinstance(place, str):
            found.append(open_place(place))
        elif isinstance(place, Mapping) and isinstance(place.get("url"), str):
            options = {key: value for key, value in place.items() if key != "url"}
            found.append(open_place(place["url"], **options))
        else:
            message = f'a place is a URL or a mapping with "url", not a {type(place).__name__}'
            raise LayerInvalid(index, name, "places", message)
    return found
