"""Rules, and the decisions they lead to.

The first rule that speaks of the user, the action and the target decides; where there are rules
and none does, the answer is no. Where there are no rules at all, services' own settings (private
repositories, append-only) are all there is, and the answer is yes. A token's scope narrows what
its user may do and never widens it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backupgw.kvstore.names import InvalidName, check_path

from .patterns import matches
from .vocabulary import Action, Pattern, Principal, Target

if TYPE_CHECKING:
    from ..settings import Settings

REMEMBERED = 8192
"""Answers kept; a flood of new names empties them all and costs others one calculation each."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """One line of the policy.

    Attributes:
        who: patterns of user names; `@NAME` is a group, "" a client without a name.
        actions: what it speaks of.
        on: which targets.
        allow: what it says.
        origin: where it is written, for people.
    """

    who: tuple[str, ...]
    actions: Action
    on: tuple[Pattern, ...]
    allow: bool
    origin: str

    def speaks_of(self, user: str, groups: Mapping[str, frozenset[str]], target: Target) -> bool:
        """Whether it has something to say when `user` wants something of `target`."""
        return any(_is(who, user, groups) for who in self.who) and any(
            pattern.matches(target, user) for pattern in self.on
        )


def _is(who: str, user: str, groups: Mapping[str, frozenset[str]]) -> bool:
    if not user or not who:
        return user == who  # `*` is everybody who has a name
    if who.startswith("@"):
        return user in groups.get(who[1:], ())
    return matches(who, user)


@dataclass(frozen=True)
class Decision:
    """An answer.

    Attributes:
        allowed: the answer.
        why: one line for a person.
        rules: where the rules that led to it are written; one for a refusal, one for each single
            action for a permission, empty where none was needed.
    """

    allowed: bool
    why: str
    rules: tuple[str, ...] = ()


class _Policy:
    """Rules with the answers that they gave, replaced together."""

    def __init__(self, rules: Sequence[Rule], groups: Mapping[str, frozenset[str]]) -> None:
        self.rules = tuple(rules)
        self.groups = groups
        self.answers: dict[tuple[Principal, Action, Target], bool] = {}


class Authoriser:
    """Answers from rules. Safe to use from any thread; never waits."""

    def __init__(
        self, rules: Sequence[Rule] = (), groups: Mapping[str, frozenset[str]] | None = None
    ) -> None:
        self._policy = _Policy(rules, groups or {})

    def replace(self, rules: Sequence[Rule], groups: Mapping[str, frozenset[str]]) -> None:
        """Use other rules from now on."""
        self._policy = _Policy(rules, groups)

    def leaves_alone(self, who: Principal) -> bool:
        """Whether nothing is denied to `who`: there are no rules, and no token says less."""
        return who.scope is None and not self._policy.rules

    def allows(self, who: Principal, action: Action, target: Target) -> bool:
        """Whether `who` may do `action`, all of it, to `target`."""
        policy = self._policy
        question = (who, action, target)
        answer = policy.answers.get(question)
        if answer is None:
            answer = _decide(policy, who, action, target).allowed
            if len(policy.answers) >= REMEMBERED:
                policy.answers.clear()
            policy.answers[question] = answer
        return answer

    def decide(self, who: Principal, action: Action, target: Target) -> Decision:
        """Answer as `allows` does, with the reason."""
        return _decide(self._policy, who, action, target)


def _decide(policy: _Policy, who: Principal, action: Action, target: Target) -> Decision:
    if not action:
        return Decision(False, "no action was asked for")
    try:
        check_path(target.path)
    except InvalidName as error:
        return Decision(False, f"the target is not a valid name: {error}")
    if who.scope is not None:
        if missing := action & ~who.scope.actions:
            return Decision(False, f"the token is not for {Action(missing).word}")
        if not any(pattern.matches(target, who.user) for pattern in who.scope.on):
            return Decision(False, f"the token is not for {target}")
    if not policy.rules:
        return Decision(True, "there are no rules; only the services' own settings apply")
    speaking = [r for r in policy.rules if r.speaks_of(who.user, policy.groups, target)]
    deciding: dict[str, None] = {}
    name = who.user or "a client without a name"
    for single in action:
        rule = next((rule for rule in speaking if single in rule.actions), None)
        if rule is None:
            return Decision(False, f"no rule allows {name} {single.word} on {target}")
        if not rule.allow:
            why = f"a rule denies {name} {single.word} on {target}"
            return Decision(False, why, (rule.origin,))
        deciding[rule.origin] = None
    return Decision(True, f"{name} is allowed {action.word} on {target}", tuple(deciding))


def rules_of(settings: Settings) -> tuple[list[Rule], dict[str, frozenset[str]]]:
    """Return the rules and groups of the section `[auth]`."""
    from ..settings_auth import AuthSettings

    section = settings.section("auth", AuthSettings)
    rules = [
        Rule(
            tuple(rule.who),
            rule.actions,
            rule.patterns,
            rule.deny is None,
            f"rule {number + 1} ({settings.origin('auth', 'rule', number)})",
        )
        for number, rule in enumerate(section.rule)
    ]
    return rules, {name: frozenset(users) for name, users in section.groups.items()}


def from_settings(settings: Settings) -> Authoriser:
    """Return the authoriser of a gateway."""
    return Authoriser(*rules_of(settings))


def reload(authoriser: Authoriser, config: Path | None) -> bool:
    """Read the settings again and use their rules. Reads files: call it on a thread.

    With a mistake in the settings the rules stay as they are, and the log says so: neither does
    everything open up, nor are all clients shut out by a typing error.

    Args:
        config: the settings file, as given to `settings.load` at the start.

    Returns:
        Whether the rules are those of the file now.
    """
    from ..command import CommandError
    from ..settings import load

    try:
        rules, groups = rules_of(load(config))
    except CommandError as error:
        _log.error("the rules stay as they were; the settings have mistakes: %s", error)
        return False
    authoriser.replace(rules, groups)
    _log.info("%d rules in effect", len(rules))
    return True
