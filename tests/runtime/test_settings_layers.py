"""`layers` of a place: what runs is what was written, and a mistake is told with its line."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from backupgw.kvstore.layers.observe import ObserveLayer
from backupgw.kvstore.layers.prefix import PrefixLayer
from backupgw.kvstore.layers.quota_place import PlaceQuota
from backupgw.kvstore.layers.readonly import ReadOnlyLayer
from backupgw.kvstore.layers.retry import RetryLayer
from backupgw.kvstore.layers.throttle import ThrottleLayer
from backupgw.runtime import metrics, settings_text
from backupgw.runtime.settings import Settings, SettingsError, load


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(tmp_path: Path, text: str, **environ: str) -> Settings:
    config = tmp_path / "gw.toml"
    config.write_text(text)
    config.chmod(0o600)
    return load(config, None, environ, services={})


def mistakes(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, **environ)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


STACK = """\
[state]
folder = "state"

[places.main]
url = "memory:"
layers = [
  "observe",
  { layer = "quota", limit = "2 TB" },
  # by day the line belongs to people
  { layer = "throttle", upload = "08:00,2M 19:00,off" },
  { layer = "retry", attempts = 7 },
  { layer = "prefix", folder = "gateway" },
]
"""


def test_the_stack_is_built_as_written(tmp_path: Path) -> None:
    place: Any = read(tmp_path, STACK).open_place("main")
    kinds = []
    while hasattr(place, "inner"):
        kinds.append(type(place))
        place = place.inner
    assert kinds == [ObserveLayer, PlaceQuota, ThrottleLayer, RetryLayer, PrefixLayer]


def test_a_worker_gets_the_same_stack(tmp_path: Path) -> None:
    settings = pickle.loads(pickle.dumps(read(tmp_path, STACK)))
    place = settings.open_place("main")
    place.create()
    with place:
        place.store("item", b"value")
        assert place.quota().usage == 5
    assert (tmp_path / "state" / "places" / "main" / "quota.sqlite3").exists()


def test_tables_of_their_own_mean_the_same(tmp_path: Path) -> None:
    text = """\
[places.main]
url = "memory:"
[[places.main.layers]]
layer = "readonly"
[[places.main.layers]]
layer = "retry"
attempts = "three"
"""
    assert mistakes(tmp_path, text) == [
        "gw.toml:7: places.main.layers[1].attempts: must be a whole number of at least 1, "
        "not 'three'"
    ]
    place = read(tmp_path, text.replace('"three"', "3")).open_place("main")
    assert isinstance(place, ReadOnlyLayer)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ('"retyr"', "[1]: unknown layer 'retyr'; did you mean 'retry'? (known: "),
        ('"observe"', "[1]: is there twice; keep one"),
        ('{ layer = "retry", attempt = 5 }', "[1].attempt: unknown option 'attempt'; did you"),
        ('{ layer = "retry", attempts = 0 }', "[1].attempts: must be a whole number of at least 1"),
        ('{ layer = "throttle", upload = "x" }', "[1].upload: 'x' is no number of bytes"),
        ('"prefix"', "[1].folder: is missing; add folder = …"),
        ("{ attempts = 5 }", "[1].layer: is missing; add layer = …"),
        ('{ layer = "permissions", rules = { "" = "x" } }', "[1].rules: '' has the letters 'x'"),
        ("7", "[1]: must be a table, not 7"),
        ('{ layer = "mirror", places = ["nsa"] }', "[1].places[0]: there is no [places.nsa]; did"),
        ('{ layer = "mirror", places = ["main"] }', "[1].places[0]: leads back to main itself"),
        ('{ layer = "mirror", places = ["back"] }', "[1].places[0]: leads back to main itself"),
        ('{ layer = "mirror", places = "nas" }', "[1].places: must be a list of places"),
    ],
)
def test_a_mistake_names_the_line_of_its_layer(tmp_path: Path, layer: str, says: str) -> None:
    text = f"""\
[places.nas]
url = "memory:nas"
[places.back]
url = "memory:back"
layers = [{{ layer = "mirror", places = ["main"] }}]
[places.main]
url = "memory:"
layers = [
  "observe",
  {layer},
]
"""
    told = [line for line in mistakes(tmp_path, text) if line.startswith("gw.toml:10: ")]
    assert len(told) == 1
    assert told[0].startswith(f"gw.toml:10: places.main.layers{says}")


def test_a_wrong_order_is_refused_when_the_settings_are_read(tmp_path: Path) -> None:
    text = '[places.main]\nurl = "memory:"\nlayers = ["retry", "readonly"]\n'
    assert mistakes(tmp_path, text) == [
        "gw.toml:3: places.main.layers[1]: must lie outside retry, and layers are written "
        "outermost first; the right order: readonly · retry"
    ]


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = """\
[places.main]
url = "memory:"
layers = [
  { layer = "throttle", upload = "fast" },
  { layer = "retry", attempts = 0 },
]
[places.other]
url = "memory:"
layers = "retry"
"""
    assert [line.split(": ")[:2] for line in mistakes(tmp_path, text)] == [
        ["gw.toml:4", "places.main.layers[0].upload"],
        ["gw.toml:5", "places.main.layers[1].attempts"],
        ["gw.toml:9", "places.other.layers"],
    ]


def test_layers_come_from_the_environment_too(tmp_path: Path) -> None:
    layers = json.dumps(["readonly", {"layer": "retry", "attempts": "4"}])
    variable = "BACKUPGW_PLACES__MAIN__LAYERS"
    text = '[places.main]\nurl = "memory:"\n'
    place = read(tmp_path, text, **{variable: layers}).open_place("main")
    assert isinstance(place, ReadOnlyLayer)
    wrong = layers.replace("4", "0")
    assert mistakes(tmp_path, text, **{variable: wrong})[0].startswith(
        f"{variable}: places.main.layers[1].attempts: must be"
    )


def test_other_places_come_with_their_own_layers(tmp_path: Path) -> None:
    text = """\
[places.main]
url = "memory:"
layers = [{ layer = "mirror", places = ["nas"], journal = "/nonexistent/journal" }]
[places.nas]
url = "memory:nas"
layers = ["retry"]
"""
    settings = read(tmp_path, text)
    seen: list[object] = []
    from backupgw.runtime import settings_layers

    specs = settings_layers.specs(settings.places["main"].layers, settings.open_place)
    seen += specs[0]["places"]  # type: ignore[arg-type]
    assert [type(place) for place in seen] == [RetryLayer]


def test_secrets_in_options_stay_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("hush-from-file\n")
    (tmp_path / "key").chmod(0o600)
    text = f"""\
[places.main]
url = "memory:"
layers = [{{ layer = "encrypt", passphrase = {{ file = "{tmp_path}/key" }} }}]
[places.other]
url = "memory:"
layers = [{{ layer = "encrypt", passphrase = "hush-literal" }}]
"""
    settings = read(tmp_path, text)
    shown = settings_text.show(settings) + repr(settings.places) + str(settings.places)
    assert "hush" not in shown
    assert f"{tmp_path}/key" in shown, "where it comes from is no secret"
    config = tmp_path / "gw.toml"
    config.chmod(0o644)
    warnings = load(config, None, {}, services={}).warnings
    assert any("holds secrets and others can read it" in line for line in warnings)
    from backupgw.kvstore.layers import stack
    from backupgw.runtime.settings_layers import specs

    revealed = specs(settings.places["main"].layers, settings.open_place)
    assert revealed == [{"layer": "encrypt", "passphrase": "hush-from-file"}]
    assert "passphrase" in stack.options_of("encrypt")


def test_a_key_is_a_secret_like_a_passphrase(tmp_path: Path) -> None:
    text = '[places.main]\nurl = "memory:"\nlayers = [{ layer = "encrypt", key = "hush" }]\n'
    assert all("hush" not in line for line in mistakes(tmp_path, text))


def test_a_secret_that_is_not_there_does_not_keep_the_settings_from_being_checked(
    tmp_path: Path,
) -> None:
    text = """\
[places.main]
url = "memory:"
layers = [{ layer = "encrypt", passphrase = { file = "/nonexistent/key" } }]
"""
    settings = read(tmp_path, text)
    with pytest.raises(Exception, match="cannot read the secret file /nonexistent/key"):
        settings.open_place("main")


def test_what_is_in_effect_shows_the_layers(tmp_path: Path) -> None:
    shown = settings_text.show(read(tmp_path, STACK))
    line = next(line for line in shown.splitlines() if line.startswith("layers = "))
    assert '{ layer = "retry", attempts = 7 }' in line
    assert line.endswith("gw.toml:6")


def test_editors_know_layers_by_the_schema() -> None:
    layers = settings_text.schema({})["properties"]["places"]["additionalProperties"]["properties"]
    assert layers["layers"]["items"]["anyOf"][0]["type"] == "string"


def test_observed_operations_are_counted_by_place(tmp_path: Path) -> None:
    text = '[places.counted]\nurl = "memory:"\nlayers = ["observe"]\n'
    place = read(tmp_path, text).open_place("counted")
    place.create()
    with place:
        place.store("item", b"12345")
        place.load("item")
        with pytest.raises(Exception, match="nothing"):
            place.delete("nothing")
    shown = metrics.exposition().decode()
    assert (
        'backupgw_place_operations_total{operation="store",outcome="ok",place="counted"} 1.0'
        in shown
    )
    assert (
        'operations_total{operation="delete",outcome="ObjectNotFound",place="counted"} 1.0' in shown
    )
    assert 'backupgw_place_bytes_total{operation="load",place="counted"} 5.0' in shown
    assert 'backupgw_place_operation_seconds_total{operation="load",place="counted"}' in shown


def test_the_log_names_the_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = read(tmp_path, '[places.nas]\nurl = "memory:"\nlayers = ["observe"]\n').open_place(
        "nas"
    )
    with caplog.at_level(logging.DEBUG, "backupgw.kvstore.layers.observe"):
        place.create()
    assert caplog.messages[0].startswith("nas: create")
