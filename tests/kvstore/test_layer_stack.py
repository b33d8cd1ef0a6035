"""Layers by name: one order, and a mistake is told with what to write instead."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore import entry_points
from backupgw.kvstore.backends.base import Backend
from backupgw.kvstore.backends.errors import BackendDoesNotExist, BackendError
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.backends.posixfs import PosixFS
from backupgw.kvstore.layers import options, stack
from backupgw.kvstore.layers.base import Layer
from backupgw.kvstore.layers.observe import ObserveLayer
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.layers.retry import RetryLayer
from backupgw.kvstore.layers.stack import LayerInvalid, LayerSpec
from backupgw.kvstore.registry import open_place


class Chooses(Layer):
    def __init__(self, inner: Backend, **seen: object) -> None:
        super().__init__(inner)
        self.seen = seen


def from_options(
    inner: Backend, *, colour: object, places: object = (), state_folder: object = None
) -> Chooses:
    if colour == "none":
        raise options.OptionInvalid("colour", "must be one")
    return Chooses(inner, colour=colour, places=places, state_folder=state_folder)


@stack.beside("quota")
def beside_quota(inner: Backend) -> Chooses:
    return Chooses(inner)


def nowhere(inner: Backend) -> Chooses:
    return Chooses(inner)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers of another package, besides what is installed."""
    installed = entry_points.installed
    found = [
        metadata.EntryPoint("trash", f"{__name__}:from_options", stack.GROUP),
        metadata.EntryPoint("audit", f"{__name__}:beside_quota", stack.GROUP),
        metadata.EntryPoint("stray", f"{__name__}:nowhere", stack.GROUP),
        metadata.EntryPoint("lib", "tests.kvstore.needs_a_library:from_url", stack.GROUP),
    ]

    def with_own(group: str) -> Any:
        if group != stack.GROUP:
            return installed(group)
        return [e for e in installed(group) if e.name != "trash"] + found

    monkeypatch.setattr(entry_points, "installed", with_own)


def test_the_layers_lie_as_they_are_written() -> None:
    layers: list[LayerSpec] = [
        "observe",
        {"layer": "retry", "attempts": 3},
        {"layer": "prefix", "folder": "a"},
    ]
    place = open_place("memory:", layers=layers)
    assert isinstance(place, ObserveLayer)
    assert isinstance(place.inner, RetryLayer)
    assert isinstance(place.inner.inner, PrefixLayer)
    assert isinstance(place.inner.inner.inner, Memory)


def test_every_layer_of_the_order_is_registered_and_no_other() -> None:
    assert stack.names() == list(stack.ORDER)


def mistake(*layers: Any) -> str:
    with pytest.raises(LayerInvalid) as caught:
        open_place("memory:", layers=layers)
    return str(caught.value)


def test_a_wrong_order_is_refused_with_the_right_one() -> None:
    assert mistake("retry", "observe", "readonly") == (
        "layer observe: must lie outside retry, and layers are written outermost first; "
        "the right order: observe · retry"
    )
    assert mistake("readonly", "retry", {"layer": "throttle"}).endswith(
        "the right order: readonly · throttle · retry"
    )


def test_a_layer_that_is_there_twice_is_refused() -> None:
    assert mistake("retry", "retry") == "layer retry: is there twice; keep one"


def test_what_is_unknown_is_named_with_the_near_one() -> None:
    assert "unknown layer 'retyr'; did you mean 'retry'? (known: " in mistake("retyr")
    says = mistake({"layer": "retry", "atempts": 3})
    assert says.startswith(
        "layer retry: atempts: unknown option 'atempts'; did you mean 'attempts'"
    )


def test_an_option_that_is_missing_is_named() -> None:
    assert mistake("prefix") == "layer prefix: folder: is missing; add folder = …"


def test_what_is_no_layer_is_told_by_its_number() -> None:
    assert mistake("observe", 7) == 'layer 2: must be "NAME" or { layer = "NAME", option = … }'
    assert mistake({"attempts": 3}) == 'layer 1: layer: needs a name; write { layer = "NAME", … }'
    with pytest.raises(LayerInvalid, match="the layers are a list"):
        open_place("memory:", layers="retry")


@pytest.mark.usefixtures("own")
def test_a_layer_of_another_package_lies_where_it_says() -> None:
    place = open_place("memory:", layers=["observe", "audit", {"layer": "trash", "colour": "red"}])
    assert isinstance(place, ObserveLayer)
    with pytest.raises(LayerInvalid, match="the right order: audit · trash"):
        open_place("memory:", layers=[{"layer": "trash", "colour": "red"}, "audit"])
    with pytest.raises(BackendError, match="must mark its factory"):
        open_place("memory:", layers=["observe", "stray"])
    with pytest.raises(ValueError, match="none of observe"):
        stack.beside("inside")


@pytest.mark.usefixtures("own")
def test_other_places_come_as_backends(tmp_path: Path) -> None:
    second = Memory()
    places = [second, f"file://{tmp_path}/b", {"url": "memory:c", "layers": ["retry"]}]
    place = open_place("memory:", layers=[{"layer": "trash", "colour": "red", "places": places}])
    assert isinstance(place, Chooses)
    seen: Any = place.seen["places"]
    assert seen[0] is second
    assert isinstance(seen[1], PosixFS)
    assert isinstance(seen[2], RetryLayer)
    for wrong in ("memory:", {"url": "memory:"}, [7], [{"path": "/x"}]):
        with pytest.raises(LayerInvalid, match="layer trash: places: "):
            open_place("memory:", layers=[{"layer": "trash", "colour": "red", "places": wrong}])


@pytest.mark.usefixtures("own")
def test_the_context_goes_to_those_who_know_it_and_gives_way_to_options() -> None:
    context = {"state_folder": "/state", "name": "main", "unknown": 1}
    layers: list[LayerSpec] = ["readonly", {"layer": "trash", "colour": "red"}]
    place: Any = open_place("memory:", layers=layers, context=context)
    assert place.inner.seen["state_folder"] == "/state"
    layers = [{"layer": "trash", "colour": "red", "state_folder": "/own"}]
    place = open_place("memory:", layers=layers, context=context)
    assert place.seen["state_folder"] == "/own"


@pytest.mark.usefixtures("own")
def test_a_missing_library_gets_the_install_command() -> None:
    with pytest.raises(BackendDoesNotExist, match="pip install no_such_library_at_all"):
        open_place("memory:", layers=["lib"])


@pytest.mark.usefixtures("own")
def test_a_wrong_value_is_told_with_layer_and_option() -> None:
    with pytest.raises(LayerInvalid) as caught:
        open_place("memory:", layers=["observe", {"layer": "trash", "colour": "none"}])
    assert str(caught.value) == "layer trash: colour: must be one"
    assert (caught.value.index, caught.value.option) == (1, "colour")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20 MB", 20_000_000),
        ("20 MiB", 20 << 20),
        ("512k", 512 << 10),
        ("1.5K", 1536),
        ("1 tb", 10**12),
        ("17", 17),
        ("17 B", 17),
        (17, 17),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    assert options.size("limit", text) == expected


@pytest.mark.parametrize("wrong", ["", "big", "-1", -1, 1.5, True, None, "1 XB", "9" * 400, "nan"])
def test_what_is_no_size(wrong: object) -> None:
    with pytest.raises(options.OptionInvalid, match=r"limit: .* is no number of bytes"):
        options.size("limit", wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1.5 h", 5400), ("15 min", 900), ("30 days", 2_592_000), ("20ms", 0.02), (7, 7)],
)
def test_times(text: object, expected: float) -> None:
    assert options.duration("keep", text) == pytest.approx(expected)


@pytest.mark.parametrize("wrong", ["", "soon", "-1 s", -1, float("inf"), True, None, "5 x", "1e9"])
def test_what_is_no_time(wrong: object) -> None:
    with pytest.raises(options.OptionInvalid, match=r"keep: .* is no time"):
        options.duration("keep", wrong)


def test_counts_and_flags_come_as_text_from_the_environment() -> None:
    assert options.count("n", "5") == 5
    assert options.flag("f", "True") is True
    for wrong in ("yes", 1, None):
        with pytest.raises(options.OptionInvalid, match="f: must be true or false"):
            options.flag("f", wrong)
    for value in ("five", -1, True, "-1"):
        with pytest.raises(options.OptionInvalid, match="n: must be a whole number"):
            options.count("n", value)
