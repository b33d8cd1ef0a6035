"""Who may do what to which place, repository or folder; one vocabulary for all services.

    authoriser = from_settings(settings)
    if not authoriser.allows(Principal("alice"), Action.ADD, Target.repository("default", "alice")):
        ...

A service maps its protocol's requests onto `Action`s and asks; `allows` never waits. `decide`
gives the same answer with its reason.
"""

from .rules import Authoriser, Decision, Rule, from_settings, reload
from .vocabulary import Action, Kind, Principal, Scope, Target, actions_named

__all__ = [
    "Action",
    "Authoriser",
    "Decision",
    "Kind",
    "Principal",
    "Rule",
    "Scope",
    "Target",
    "actions_named",
    "from_settings",
    "reload",
]
