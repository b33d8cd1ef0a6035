"""Rules: who may do what, and that nothing slips through a pattern."""

import logging
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupgw.runtime.authorisation import (
    Action,
    Authoriser,
    Principal,
    Scope,
    Target,
    actions_named,
    from_settings,
    reload,
)
from backupgw.runtime.authorisation.patterns import matches, path_matches
from backupgw.runtime.settings import SettingsError, load

ANN = Principal("ann")
MINE = Target.repository("default", "ann/laptop")
OTHERS = Target.repository("default", "bob/laptop")


def authoriser(tmp_path: Path, rules: str) -> Authoriser:
    config = tmp_path / "gw.toml"
    config.write_text(rules)
    return from_settings(load(config, environ={}))


OWN = """
[auth.groups]
ops = ["olga"]

[[auth.rule]]
who = ["*"]
deny = ["delete", "replace"]
on = ["repository:default/vault/**"]

[[auth.rule]]
who = ["@ops"]
allow = ["admin"]
on = ["*:**"]

[[auth.rule]]
who = ["*"]
allow = ["append"]
on = ["repository:*/{user}/**"]

[[auth.rule]]
who = [""]
allow = ["read-only"]
on = ["repository:default/public"]
"""


@pytest.mark.parametrize(
    ("user", "action", "target", "allowed"),
    [
        ("ann", "append", "repository:default/ann/laptop", True),
        ("ann", "append", "repository:default/ann", True),
        ("ann", "full", "repository:default/ann/laptop", False),
        ("ann", "read-only", "repository:default/bob/laptop", False),
        ("ann", "read-only", "repository:default/annabel", False),
        ("ann", "read-only", "folder:default/ann/laptop", False),
        ("ann", "read-only", "repository:default/public", False),
        ("", "read-only", "repository:default/public", True),
        ("", "read", "repository:default/public", False),
        ("", "open", "repository:default/ann", False),
        ("olga", "admin", "repository:default/ann/laptop", True),
        ("olga", "admin", "place:default", True),
        ("olga", "delete", "repository:default/vault/2026", False),
        ("olga", "append", "repository:default/vault/2026", True),
        ("*", "open", "repository:default/ann", False),
        ("{user}", "open", "repository:default/ann", False),
        ("**", "open", "repository:default/ann", False),
        ("a*", "open", "repository:default/ann", False),
        ("@ops", "open", "repository:default/ann", False),
    ],
)
def test_the_first_rule_that_fits_decides(
    tmp_path: Path, user: str, action: str, target: str, allowed: bool
) -> None:
    rules = authoriser(tmp_path, OWN)
    question = (Principal(user), actions_named([action]), Target.parse(target))
    assert rules.allows(*question) is allowed
    assert rules.allows(*question) is allowed  # from memory
    assert rules.decide(*question).allowed is allowed


def test_without_rules_services_decide_alone_and_with_one_the_rest_is_denied(
    tmp_path: Path,
) -> None:
    assert Authoriser().allows(ANN, Action.FULL, OTHERS)
    rule = '[[auth.rule]]\nwho = ["zoe"]\ndeny = ["open"]\non = ["*:**"]\n'
    assert not authoriser(tmp_path, rule).allows(ANN, Action.OPEN, MINE)


def test_a_token_narrows_what_its_user_may_do_and_never_widens_it(tmp_path: Path) -> None:
    rules = authoriser(tmp_path, OWN)
    laptop = Scope.parse(["write-only"], ["repository:default/{user}/laptop"])
    wide = Scope.parse(["admin"], ["*:**"])
    with_token = Principal("ann", laptop, "1")
    assert rules.allows(with_token, Action.ADD, MINE)
    assert "not for load" in rules.decide(with_token, Action.LOAD, MINE).why
    desktop = Target.repository("default", "ann/desktop")
    assert rules.allows(ANN, Action.ADD, desktop)
    assert not rules.allows(with_token, Action.ADD, desktop)
    assert not rules.allows(Principal("ann", wide, "2"), Action.DELETE, MINE)
    assert not Authoriser().allows(with_token, Action.LOAD, MINE)


@pytest.mark.parametrize("path", ["default/ann/../bob", "default//ann", "default/.backupgw-x", ""])
def test_a_name_that_no_place_has_is_denied_whatever_the_rules(path: str) -> None:
    assert not Authoriser().allows(ANN, Action.OPEN, MINE._replace(path=path))


def test_nothing_is_not_allowed() -> None:
    assert not Authoriser().allows(ANN, Action(0), MINE)


def test_a_flood_of_names_neither_fills_the_memory_nor_changes_an_answer(tmp_path: Path) -> None:
    rules = authoriser(tmp_path, OWN)
    for number in range(9000):
        assert not rules.allows(ANN, Action.ADD, Target.repository("default", f"x{number}"))
    assert len(rules._policy.answers) <= 8192
    assert rules.allows(ANN, Action.ADD, MINE)


def test_reload_takes_new_rules_and_keeps_the_old_ones_over_a_mistake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = authoriser(tmp_path, OWN)
    config = tmp_path / "gw.toml"
    assert rules.allows(ANN, Action.ADD, MINE)
    config.write_text(OWN.replace('allow = ["append"]', 'allow = ["read-only"]'))
    assert reload(rules, config)
    assert not rules.allows(ANN, Action.ADD, MINE)
    config.write_text(OWN.replace('"append"', '"apend"'))
    with caplog.at_level(logging.ERROR):
        assert not reload(rules, config)
    assert "gw.toml:17" in caplog.text
    assert rules.allows(ANN, Action.LOAD, MINE)
    assert not rules.allows(ANN, Action.LOAD, OTHERS)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('who = ["ann"]\nallow = ["raed"]\non = ["*:**"]', ":3: auth.rule[0].allow: 'raed' is no"),
        ('who = ["ann"]\non = ["*:**"]', "either allow = [ … ] or deny"),
        ('who = ["ann"]\nallow = ["add"]\ndeny = ["add"]\non = ["*:**"]', "either allow"),
        ('who = ["@opps"]\nallow = ["add"]\non = ["*:**"]', "there is no group 'opps'"),
        ('who = ["ann"]\nallow = ["add"]\non = ["repository:ann/x"]', "there is no place 'ann'"),
        ('who = ["ann"]\nallow = ["add"]\non = ["ann/x"]', "is no pattern of targets"),
        ('who = ["ann"]\nallow = ["add"]\non = ["repository:*/x**"]', "stand alone"),
        ('who = ["ann"]\nallow = ["add"]\non = ["repository:*/../x"]', "would match nothing"),
        ('who = ["ann"]\nallow = ["add"]', "on: is missing"),
        ('who = []\nallow = ["add"]\non = ["*:**"]', "auth.rule[0].who"),
    ],
)
def test_a_mistake_in_a_rule_is_told_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        authoriser(tmp_path, f"[[auth.rule]]\n{line}\n")
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/gw.toml:")


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_stars_mean_what_they_mean_everywhere(pattern: str, text: str) -> None:
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), text) is not None
    assert matches(pattern, text) is expected


SEGMENT = st.sampled_from(["a", "b", "a*", "*", "**", "{user}", "*{user}", "x-{user}-*"])


@settings(max_examples=300)
@given(
    st.lists(SEGMENT, min_size=1, max_size=5),
    st.lists(st.sampled_from(["a", "b", "ab", "u*", "xu*", "x-u*-1"]), min_size=1, max_size=6),
)
def test_paths_match_as_a_regular_expression_would(pattern: list[str], path: list[str]) -> None:
    # Each segment carries its slash, so that ** can stand for none.
    parts = []
    for segment in pattern:
        if segment == "**":
            parts.append("(?:[^/]*/)*")
            continue
        escaped = re.escape(segment).replace(r"\*", "[^/]*")
        parts.append(escaped.replace(re.escape("{user}"), re.escape("u*")) + "/")
    expected = re.fullmatch("".join(parts), "".join(f"{s}/" for s in path)) is not None
    assert path_matches("/".join(pattern), "/".join(path), "u*") is expected


def test_a_client_without_a_name_owns_nothing() -> None:
    for pattern in ("{user}", "{user}*", "home-{user}", "**/{user}*"):
        assert not path_matches(pattern, "home-", "")
        assert not path_matches(pattern, "ann", "")


def test_a_pattern_made_to_be_slow_is_answered() -> None:
    # With backtracking this would outlast the machine.
    assert not path_matches("/".join(["**", "a"] * 60 + ["b"]), "/".join(["a"] * 1000), "ann")
    assert not matches("a*" * 100 + "b", "a" * 4000)
