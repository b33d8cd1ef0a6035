"""The section `[auth]`: groups of users, and rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .authorisation.patterns import matches
from .authorisation.vocabulary import Action, Pattern, actions_named
from .settings_errors import Key, did_you_mean


class RuleSettings(BaseModel):
    """One `[[auth.rule]]`: exactly one of `allow` and `deny`.

    Attributes:
        who: users, as patterns; "@NAME" is a group, "*" everybody with a name, "" a client without.
        allow: actions that are allowed.
        deny: actions that are denied.
        on: targets, as patterns: "repository:default/{user}/**".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: list[str] = Field(min_length=1)
    allow: list[str] | None = Field(default=None, min_length=1)
    deny: list[str] | None = Field(default=None, min_length=1)
    on: list[str] = Field(min_length=1)

    @field_validator("allow", "deny")
    @classmethod
    def _actions(cls, words: list[str] | None) -> list[str] | None:
        actions_named(words or ())
        return words

    @field_validator("on")
    @classmethod
    def _patterns(cls, patterns: list[str]) -> list[str]:
        for text in patterns:
            Pattern.parse(text)
        return patterns

    @model_validator(mode="after")
    def _one_effect(self) -> RuleSettings:
        if (self.allow is None) == (self.deny is None):
            raise ValueError("must have either allow = [ … ] or deny = [ … ]")
        return self

    @property
    def actions(self) -> Action:
        """What the rule speaks of."""
        return actions_named(self.allow or self.deny or ())

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The targets it speaks of."""
        return tuple(Pattern.parse(text) for text in self.on)


class AuthSettings(BaseModel):
    """Who may do what: rules, the first that fits decides; none at all leaves it to the services.

    Attributes:
        groups: lists of users, by the name of their group; written below [auth.groups].
        rule: the rules; written as [[auth.rule]] with who, on, and allow or deny.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: dict[str, list[str]] = {}
    rule: list[RuleSettings] = []

    def mistakes(self, places: Iterable[str]) -> Iterator[tuple[Key, str]]:
        """Yield, by key, what refers to nothing: a rule that can never match protects nothing.

        Args:
            places: the names of all places.
        """
        places = list(places)
        for number, rule in enumerate(self.rule):
            for index, who in enumerate(rule.who):
                if who.startswith("@") and who[1:] not in self.groups:
                    advice = did_you_mean(who[1:], self.groups) or f"add {who[1:]} to [auth.groups]"
                    yield ("rule", number, "who", index), f"there is no group {who[1:]!r}; {advice}"
            for index, pattern in enumerate(rule.patterns):
                place = pattern.path.partition("/")[0]
                if place == "**" or any(matches(place, name) for name in places):
                    continue
                yield (
                    ("rule", number, "on", index),
                    f"there is no place {place!r}: the first segment is the place's name, or *; "
                    f"{did_you_mean(place, places)}",
                )
