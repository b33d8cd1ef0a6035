"""Layers pass a removal that tells the size on: where the place learns it on the way, they look no
more often than for one that does not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kvstore import layer_places, quota_place

from backupgw.kvstore.backends.base import Capabilities, ItemInfo
from backupgw.kvstore.backends.errors import ObjectNotFound
from backupgw.kvstore.backends.memory import Memory
from backupgw.kvstore.layers.base import Layer, changed
from backupgw.kvstore.layers.quota import QuotaLayer
from backupgw.kvstore.layers.stack import LayerSpec, stacked
from backupgw.kvstore.registry import open_place

NAME = "alice/main/data/item"


class Remote(Layer):
    """A place that tells the size of what it removes, and to which each call is a round trip."""

    def __init__(self) -> None:
        super().__init__(Memory())
        self.asked: list[str] = []

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        return changed(self.inner.capabilities, move=False)

    def info(self, name: str) -> ItemInfo:
        self.asked.append("info")
        return self.inner.info(name)

    def delete(self, name: str) -> None:
        self.delete_sized(name)

    def delete_sized(self, name: str) -> int:
        self.asked.append("delete")
        size = self.inner.info(name).size
        self.inner.delete(name)
        return size


STACKS: dict[str, list[LayerSpec]] = {
    "permissions": [layer_places.EVERYTHING],
    "retry": [layer_places.PATIENT],
    "encrypt": [layer_places.SEALED],
    "quota of the place": [layer_places.LIMIT],
    "trash": [layer_places.TRASH],
    "cache": [{"layer": "cache", "size": "64 MiB"}],
    "mirror": [{"layer": "mirror", "places": ["memory:"], "sync": False}],
    "many": [layer_places.EVERYTHING, layer_places.TRASH, layer_places.SEALED],
}


@pytest.mark.parametrize("stack", [*STACKS, "quota", "quota over trash"])
def test_no_look_is_added(tmp_path: Path, stack: str) -> None:
    remote = Remote()
    context = {"state_folder": f"{tmp_path}/state", "name": "tried"}
    layers = STACKS.get(stack, [layer_places.TRASH] if stack == "quota over trash" else [])
    place = stacked(remote, layers, context=context, open_place=open_place)
    with quota_place.ledger_of(tmp_path) as ledger:
        if stack.startswith("quota"):
            place = QuotaLayer(place, ledger, quota_place.scopes)
        place.create()
        with place:

            def removing(sized: bool) -> list[str]:
                place.store(NAME, bytes(1000))
                del remote.asked[:]
                if sized:
                    assert place.delete_sized(NAME) == 1000
                else:
                    place.delete(NAME)
                return remote.asked.copy()

            removing(sized=False)  # what is found out at first counts for neither
            assert removing(sized=True) == removing(sized=False)
            with pytest.raises(ObjectNotFound):
                place.delete_sized(NAME)
