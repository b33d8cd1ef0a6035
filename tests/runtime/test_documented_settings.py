"""Every sample of settings in the documents is taken as it stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema_rs import Draft202012Validator

from backupgw.runtime import etcd, settings_text
from backupgw.runtime.services import installed_services
from backupgw.runtime.settings import load

ROOT = Path(__file__).parents[2]
_FENCED = re.compile(r"^```toml\n(?!\[project)(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^    .*\n|^\n(?=(?:\n)*    ))+", re.MULTILINE)


def samples() -> Iterator[tuple[str, str]]:
    """Yield each sample with the file and line where it stands."""
    for file in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = file.read_text()
        for block in _FENCED.finditer(text):
            yield f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, block.start()) + 2}", block[1]
        for block in _INDENTED.finditer(text):
            lines = [line[4:] for line in block[0].splitlines()]
            first = text.count("\n", 0, block.start()) + 1
            begun = [number for number, line in enumerate(lines) if re.match(r"\[\[?[a-z]", line)]
            if begun:
                where = f"{file.relative_to(ROOT)}:{first + begun[0]}"
                yield where, _longest("\n".join(lines[begun[0] :]))


def _longest(text: str) -> str:
    """Return a sample without the commands that follow it."""
    paragraphs = text.split("\n\n")
    for end in range(len(paragraphs), 0, -1):
        candidate = "\n\n".join(paragraphs[:end])
        try:
            tomllib.loads(candidate)
        except tomllib.TOMLDecodeError:
            continue
        return candidate
    raise AssertionError(f"no TOML: {text}")


SAMPLES = dict(samples())


def test_there_are_samples() -> None:
    assert len(SAMPLES) > 40


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    return Draft202012Validator(settings_text.schema(installed_services()))


@pytest.mark.parametrize("where", SAMPLES)
def test_an_editor_finds_no_mistake_in_a_sample(where: str, schema: Draft202012Validator) -> None:
    errors = schema.iter_errors(tomllib.loads(SAMPLES[where]))
    assert [f"{error.instance_path}: {error.message}" for error in errors] == []


@pytest.mark.parametrize("where", SAMPLES)
def test_a_sample_is_taken(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    monkeypatch.setenv("S3_KEY_ID", "id")
    monkeypatch.setattr(etcd.Etcd, "below", lambda _self, _prefix: {})
    config = tmp_path / "gw.toml"
    # Files that the reader makes before.
    config.write_text(re.sub(r'"/etc/(?:backupgw|ssl)/[^"]*"', f'"{secret}"', SAMPLES[where]))
    settings = load(config, {}, {}, serving=())
    for name in settings.places:  # options are the places' own to judge
        if "mypackage" not in settings.places[name].url:  # the reader's own
            settings.open_place(name)
