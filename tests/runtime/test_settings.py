"""Settings: which source wins, and how every mistake is told."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from backupgw.runtime.secrets import Secret
from backupgw.runtime.services import Service
from backupgw.runtime.settings import Flag, Settings, SettingsError, load


class RestOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: list[str] = ["127.0.0.1:8000"]
    workers: Annotated[int, Field(ge=1)] = 1
    place: str = "default"
    tls_cert: Path | None = None
    token: Secret | None = None


SERVICES = {"rest": Service("rest", RestOptions, "somewhere:app")}


def read(
    tmp_path: Path,
    text: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **environ: str,
) -> Settings:
    """Load `text` as the settings file; without it there is none."""
    config = None
    if text is not None:
        config = tmp_path / "gw.toml"
        config.write_text(text)
        config.chmod(0o600)
    return load(config, overrides, environ, services=SERVICES)


def mistakes(
    tmp_path: Path,
    text: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    **environ: str,
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, overrides, **environ)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_with_nothing_configured_there_is_a_place_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a b#c"
    folder.mkdir()
    monkeypatch.chdir(folder)
    settings = read(tmp_path)
    assert settings.places["default"].url == f"file://{tmp_path}/a%20b%23c/data"
    assert settings.section("rest", RestOptions).listen == ["127.0.0.1:8000"]
    assert settings.enabled == {"rest"}
    assert settings.config is None


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = "[rest]\nworkers = 2\n"
    assert read(tmp_path, "").section("rest").workers == 1
    assert read(tmp_path, text).section("rest").workers == 2
    env = {"BACKUPGW_REST__WORKERS": "3"}
    settings = read(tmp_path, text, None, **env)
    assert settings.section("rest").workers == 3
    assert str(settings.origin("rest", "workers")) == "BACKUPGW_REST__WORKERS"
    settings = read(tmp_path, text, {"rest.workers": 4}, **env)
    assert settings.section("rest").workers == 4
    assert str(settings.origin("rest", "workers")) == "--workers"
    settings = read(tmp_path, text, {"rest": {"workers": None}}, **env)
    assert settings.section("rest").workers == 3, "None means that the flag was not given"


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    assert read(tmp_path, BACKUPGW_REST__TLS_CERT="").section("rest").tls_cert is None


def test_variables_reach_lists_places_and_secrets(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        '[places.my-nas]\nurl = "memory:"\npassword = { env = "X" }\n',
        BACKUPGW_REST__LISTEN='["127.0.0.1:1", "unix:/run/x"]',
        BACKUPGW_REST__PLACE="second",
        BACKUPGW_PLACES__SECOND__URL="memory:two",
        BACKUPGW_PLACES__MY_NAS__PASSWORD__FILE="/etc/pw",
    )
    assert settings.section("rest").listen == ["127.0.0.1:1", "unix:/run/x"]
    assert settings.places["second"].url == "memory:two"
    assert set(settings.places) == {"my-nas", "second"}
    extra = settings.places["my-nas"].model_extra or {}
    assert extra["password"] == Secret.from_file("/etc/pw"), "the variable replaces, not mixes"


def test_all_mistakes_are_told_at_once_each_with_its_line(tmp_path: Path) -> None:
    text = """\
[log]
level = "inof"
formt = "json"

[places.default]
url = "fiel:///srv/backup"
password = { file = 3 }

[places.nas]
durability = "full"

[rest]
workers = "many"
listen = [
  "127.0.0.1:1",
  3,
]
"""
    assert mistakes(tmp_path, text) == [
        "gw.toml:2: log.level: must be 'debug', 'info', 'warning' or 'error', not 'inof'; "
        "did you mean 'info'?",
        "gw.toml:3: log.formt: is not a setting; did you mean 'format'?",
        "gw.toml:6: places.default.url: no backend for fiel: is installed; did you mean 'file'?",
        "gw.toml:7: places.default.password: has no name after file =",
        "gw.toml:9: places.nas.url: is missing; add url = …",
        "gw.toml:13: rest.workers: must be a whole number, not 'many'",
        "gw.toml:16: rest.listen[1]: must be text in quotes, not 3",
    ]


def test_a_mistake_names_the_variable_or_the_flag_it_came_from(tmp_path: Path) -> None:
    assert mistakes(
        tmp_path,
        "[rest]\nworkers = 3\n",
        {"rest.listen": Flag("--listen-on", 5)},
        BACKUPGW_REST__WORKERS="0",
        BACKUPGW_REST__LISTNE="x",
    ) == [
        "--listen-on: rest.listen: must be a list, [ … ], not 5",
        "BACKUPGW_REST__WORKERS: rest.workers: must be at least 1, not '0'",
        "BACKUPGW_REST__LISTNE: rest.listne: is not a setting; did you mean 'listen'?",
    ]


def test_a_wrong_list_from_the_environment_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    [line] = mistakes(tmp_path, '[rest]\nlisten = ["a", "b"]\n', BACKUPGW_REST__LISTEN='["a", 7]')
    assert line.startswith("BACKUPGW_REST__LISTEN: rest.listen[1]: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[rset]\nworkers = 1\n",
            "gw.toml:1: rset: no installed package has such settings; did you mean 'rest'?",
        ),
        ("rest = 5\n", "gw.toml:1: rest: must be a table; write [rest] and its keys below"),
        (
            'places = "file:///x"\n',
            "gw.toml:1: places: must be a table; write [places] and its keys below",
        ),
        (
            '[places]\ndefault = "file:///x"\n',
            "gw.toml:2: places.default: must be a table; "
            'write [places.default] and url = "…" below',
        ),
        (
            '[places.default]\nurl = "/srv/backup"\n',
            'gw.toml:2: places.default.url: is not a URL; write one such as "file:///srv/backup"; '
            'did you mean "file:///srv/backup"?',
        ),
        ("[rest]\nenabled = 1\n", "gw.toml:2: rest.enabled: must be true or false"),
        (
            '[places.NAS]\nurl = "memory:"\n[rest]\nplace = "NAS"\n',
            "gw.toml:1: places.NAS: a place's name has lower-case letters, digits, - and _ only; "
            "rename it",
        ),
        (
            '[places.main]\nurl = "memory:"\n[rest]\nplace = "mian"\n',
            "gw.toml:4: rest.place: there is no [places.mian]; did you mean 'main'?",
        ),
        (
            '[places.main]\nurl = "memory:"\n',
            'gw.toml: rest.place: there is no [places.default]; add place = "…" to [rest], or '
            "enabled = false to serve none; known here: main",
        ),
    ],
)
def test_a_mistake_says_what_to_do(tmp_path: Path, text: str, line: str) -> None:
    assert mistakes(tmp_path, text) == [line]


def test_one_underscore_where_two_belong_is_not_silently_ignored(tmp_path: Path) -> None:
    assert mistakes(tmp_path, BACKUPGW_REST_LISTEN=":1", BACKUPGW_REST_PORT="tcp://1") == [
        "BACKUPGW_REST_LISTEN: needs two underscores after the section; rename it to "
        "BACKUPGW_REST__LISTEN"
    ]


def test_a_disabled_service_needs_no_place(tmp_path: Path) -> None:
    text = '[places.main]\nurl = "memory:"\n[rest]\nenabled = false\n'
    assert read(tmp_path, text).enabled == frozenset()
    env = {"BACKUPGW_REST__ENABLED": "true", "BACKUPGW_REST__PLACE": "main"}
    assert read(tmp_path, text, None, **env).enabled == {"rest"}


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    text = '[rest]\ntoken = ["hunter2"]\n[places.default]\nurl = "memory:"\npasswrod = 1\n'
    lines = mistakes(tmp_path, text)
    assert len(lines) == 1
    assert "rest.token: is not a secret" in lines[0]
    assert "hunter2" not in lines[0]
    [line] = mistakes(tmp_path, BACKUPGW_LOG__LEVEL="s3:KEY:hunter2@host")
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('{ fil = "/hunter2" }', "has fil =, which is no key of a secret (did you mean file?)"),
        ('{ evn = "hunter2" }', "has evn =, which is no key of a secret (did you mean env?)"),
        ('{ file = "/hunter2", env = "X" }', "has file and env, where a secret has one of them"),
        ("{ hunter2 = true }", "has a table that is not a secret's"),
    ],
)
def test_a_table_that_is_no_secret_is_told_with_the_keys_of_one(
    tmp_path: Path, table: str, said: str
) -> None:
    text = f"""\
[rest]
token = {table}
[places.default]
url = "sftp://host/path"
password = {table}
[[places.default.layers]]
layer = "encrypt"
passphrase = {table}
"""
    keys = (
        'write a string, { file = "PATH" }, { env = "NAME" } or '
        '{ command = ["PROGRAM", "ARGUMENT"] }'
    )
    assert mistakes(tmp_path, text) == [
        f"gw.toml:2: rest.token: {said}; {keys}",
        f"gw.toml:5: places.default.password: {said}; {keys}",
        f"gw.toml:8: places.default.layers[0].passphrase: {said}; {keys}",
    ]


def test_settings_show_no_secret_and_survive_the_way_to_a_worker(tmp_path: Path) -> None:
    text = """\
[places.default]
url = "memory:x"
password = "hunter2"
[rest]
token = "hunter3"
"""
    settings = read(tmp_path, text)
    assert "hunter" not in f"{settings!r} {settings}"
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert copy.places["default"].options() == {"password": "hunter2"}
    assert copy.section("rest").token.reveal() == "hunter3"
    error = SettingsError("one", "two")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_options_are_handed_to_the_backend_with_secrets_revealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_PASSWORD", "hunter2")
    text = """\
[places.default]
url = "memory:"
password = { env = "NAS_PASSWORD" }
durability = "fast"
follow = ["/srv/a", "/srv/b"]
"""
    place = read(tmp_path, text).places["default"]
    assert place.options() == {
        "password": "hunter2",
        "durability": "fast",
        "follow": ["/srv/a", "/srv/b"],
    }
    assert "hunter2" not in repr(place)


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [
        ('[rest]\ntoken = "x"\n', 0o644, True),
        ('[rest]\ntoken = "x"\n', 0o640, True),
        ('[rest]\ntoken = "x"\n', 0o600, False),
        ('[rest]\ntoken = { env = "X" }\n', 0o644, False),
        ("[rest]\nworkers = 1\n", 0o644, False),
    ],
)
def test_literal_secrets_that_others_can_read_are_warned_of(
    tmp_path: Path, text: str, mode: int, warned: bool
) -> None:
    config = tmp_path / "gw.toml"
    config.write_text(text)
    config.chmod(mode)
    warnings = load(config, {}, {}, services=SERVICES).warnings
    assert [f"chmod 600 {config}" in warning for warning in warnings] == [True] * warned


def test_a_password_in_a_url_is_accepted_with_a_warning(tmp_path: Path) -> None:
    settings = read(tmp_path, '[places.default]\nurl = "memory://me:hunter2@host/x"\n')
    [warning] = settings.warnings
    assert "places.default.url: holds a password" in warning
    assert "hunter2" not in warning + repr(settings)


def test_a_service_can_tell_a_mistake_with_its_line(tmp_path: Path) -> None:
    settings = read(tmp_path, "[rest]\nworkers = 2\n")
    error = settings.mistake("cannot be 2 today; write 1", "rest", "workers")
    assert str(error).endswith("gw.toml:2: rest.workers: cannot be 2 today; write 1")
    error = settings.mistake("is wrong", "rest", "listen")
    assert str(error) == "settings: rest.listen: is wrong"


def test_asking_for_a_section_as_another_type_fails(tmp_path: Path) -> None:
    class Other(BaseModel):
        pass

    with pytest.raises(TypeError, match="RestOptions"):
        read(tmp_path).section("rest", Other)
