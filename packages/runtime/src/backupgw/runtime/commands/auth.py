"""`backupgw auth explain`: what a user, or a token, may do, and which rule says so."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from ..command import Command, CommandError, Exit, UsageError, add_json_option, global_options


def configure(parser: ArgumentParser) -> None:
    """Add the subcommand."""
    verbs = parser.add_subparsers(title="what to do", metavar="VERB", dest="verb", required=True)
    explain = verbs.add_parser(
        "explain",
        parents=[global_options()],
        help="say whether a user may do something, and which rule says so",
        description="Decide as a service would, from the settings as they are now. Exit status 0 "
        "when it is allowed, 1 when it is denied.",
    )
    explain.add_argument("user", help='the user\'s name; "" for a client without one')
    explain.add_argument("action", help="open, list, load, add, …, or a set: read, append, full, …")
    explain.add_argument("target", help="repository:PLACE/PATH, folder:PLACE/PATH or place:PLACE")
    explain.add_argument(
        "--token", metavar="ID", help="as the user would be with this token, whose limits count too"
    )
    add_json_option(explain)


def run(arguments: Namespace) -> int:
    """Decide and say why."""
    from ..authorisation import Principal, Target, actions_named, from_settings
    from ..settings import load

    try:
        action = actions_named(arguments.action.split(","))
        target = Target.parse(arguments.target)
    except ValueError as error:
        raise UsageError(str(error)) from error
    settings = load(arguments.config)
    if target.path.partition("/")[0] not in settings.places:
        raise CommandError(
            f"there is no place {target.path.partition('/')[0]!r}; "
            f"known here: {', '.join(sorted(settings.places))}"
        )
    who = Principal(arguments.user)
    if arguments.token is not None:
        from .token import good_token

        token = good_token(settings, arguments.token)
        if token.user != arguments.user:
            raise CommandError(f"the token {token.id} belongs to {token.user!r}")
        who = token.principal
    decision = from_settings(settings).decide(who, action, target)
    if arguments.json:
        document = {
            "allowed": decision.allowed,
            "user": arguments.user,
            "action": action.word,
            "target": str(target),
            "why": decision.why,
            "rules": list(decision.rules),
        }
        print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        print(f"{'allowed' if decision.allowed else 'denied'}: {decision.why}")  # noqa: T201
        for rule in decision.rules:
            print(f"  by {rule}")  # noqa: T201
    return Exit.DONE if decision.allowed else Exit.FAILED


command = Command(
    name="auth", help="explain who may do what, and why", configure=configure, run=run
)
