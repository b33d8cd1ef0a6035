"""`backupgw provider` enable, disable, set, get, set-credentials, import, …: the configuration."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from typing import Any

from backupgw.kvstore.backends.errors import BackendError
from backupgw.runtime.command import CommandError, Exit, UsageError
from backupgw.runtime.commands.store.output import json_document, line, remark
from backupgw.runtime.secrets import HIDDEN

from ..registry import PROVIDERS, problem_of
from .looking import shown_value
from .session import Session, absolute

MOST_INPUT = 64 << 10
SEEN = (
    "a secret on the command line can be seen by every user of this machine; better leave it out, "
    "and it is asked for"
)


def run(session: Session) -> int:
    """Do what the verb says."""
    verbs: dict[str, Callable[[Session], int]] = {
        "enable": _enable,
        "disable": _disable,
        "forget": _forget,
        "set": _set,
        "unset": _unset,
        "get": _get,
        "set-credentials": _set_credentials,
        "remove-credentials": _remove_credentials,
        "import": _import,
    }
    return verbs[session.arguments.verb](session)


def _tell(session: Session, record: dict[str, Any], text: str) -> int:
    if session.json:
        json_document(record)
    else:
        line(text)
    return Exit.DONE


def _enable(session: Session) -> int:
    arguments, providers = session.arguments, session.providers
    name = arguments.provider
    if arguments.type is not None:
        providers.add(name, arguments.type)
    configured = providers.get(name)
    values: dict[str, object] = {}
    for word in (*arguments.fields, *arguments.fields_too):
        field, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r}: write FIELD=VALUE")
        _warn_of_secret(session, name, field)
        values[field] = _value(value)
    if problem := problem_of(PROVIDERS[configured.kind], {**configured.config, **values}):
        raise CommandError(f"{name}: {problem}")
    providers.set(name, values | {"enabled": True})
    problem = _unready(session, name)
    if problem:
        remark(f"{name} is enabled, but not ready: {problem}")
    return _tell(
        session,
        {"name": name, "enabled": True, "problem": problem or None},
        f"{name} is enabled; `backupgw provider test {name}` tries it",
    )


def _unready(session: Session, name: str) -> str:
    try:
        session.providers.make(name)
    except (BackendError, CommandError) as error:
        return str(error)
    return ""


def _disable(session: Session) -> int:
    name = session.arguments.provider
    session.providers.set(name, {"enabled": False})
    return _tell(session, {"name": name, "enabled": False}, f"{name} is disabled")


def _forget(session: Session) -> int:
    name = session.arguments.provider
    session.providers.get(name)
    session.providers.remove(name)
    session.state(name).forget_container()
    return _tell(session, {"name": name, "forgotten": True}, f"{name} is forgotten")


def _value(text: str) -> object:
    """Return what a word of the command line means: a number, a switch, none, or text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    # 1e9, or a string in quotes, was meant as it is written.
    return value if value is None or isinstance(value, bool | int | float) else text


def _warn_of_secret(session: Session, name: str, key: str) -> None:
    if session.providers.is_secret(name, key):
        remark(f"warning: {SEEN}")


def _set(session: Session) -> int:
    arguments = session.arguments
    name, key = arguments.provider, arguments.field
    secret = session.providers.is_secret(name, key)
    if arguments.value is None:
        value: object = _asked(f"{name} {key}: ", hidden=secret)
    else:
        _warn_of_secret(session, name, key)
        value = arguments.value
    if not secret and isinstance(value, str):
        value = _value(value)
    session.providers.set(name, {key: value})
    shown = HIDDEN if secret else shown_value(value)
    return _tell(
        session,
        {"name": name, "field": key, "value": HIDDEN if secret else value},
        f"{name}: {key} = {shown}",
    )


def _unset(session: Session) -> int:
    arguments = session.arguments
    session.providers.set(arguments.provider, {arguments.field: None})
    return _tell(
        session,
        {"name": arguments.provider, "field": arguments.field, "value": None},
        f"{arguments.provider}: {arguments.field} is at its default",
    )


def _get(session: Session) -> int:
    name, key = session.arguments.provider, session.arguments.field
    configured = session.providers.get(name)
    secrets = session.providers.secrets_of(name)
    values: dict[str, Any] = {}
    for field in session.providers.fields_of(configured):
        if field.name in secrets:
            values[field.name] = HIDDEN if field.secret else secrets[field.name].reveal()
        else:
            values[field.name] = configured.config.get(field.name, field.default)
    values["enabled"] = configured.enabled
    for extra in configured.config:
        values.setdefault(extra, configured.config[extra])
    if key is not None:
        wanted = session.providers.field_name(name, key)
        values = {wanted: values.get(wanted)}
    if session.json:
        json_document(values)
    elif key is not None:
        line(shown_value(next(iter(values.values()))))
    else:
        for field_name, value in values.items():
            line(f"{field_name} = {shown_value(value)}")
    return Exit.DONE


def _asked(prompt: str, *, hidden: bool) -> str:
    """Return what the user types, or what comes by standard input."""
    if not sys.stdin.isatty():
        text = sys.stdin.read(MOST_INPUT).removesuffix("\n").removesuffix("\r")
    elif hidden:
        text = getpass.getpass(prompt, sys.stderr)
    else:
        sys.stderr.write(prompt)
        sys.stderr.flush()
        text = sys.stdin.readline(MOST_INPUT).removesuffix("\n")
    if not text:
        raise CommandError("nothing came; nothing was changed")
    return text


def _set_credentials(session: Session) -> int:
    arguments = session.arguments
    name = arguments.provider
    user_field, password_field = session.providers.credential_fields(name)
    sources = (arguments.password, arguments.password_file, arguments.password_env)
    if sum(each is not None for each in sources) > 1:
        raise UsageError("give one of --password, --password-file and --password-env")
    user = arguments.username
    if user is None and sys.stdin.isatty():
        user = _asked(f"{name} {user_field}: ", hidden=False)
    password: object
    if arguments.password is not None:
        remark(f"warning: {SEEN}")
        password = arguments.password
    elif arguments.password_file is not None:
        password = {"file": str(absolute(arguments.password_file))}
    elif arguments.password_env is not None:
        password = {"env": arguments.password_env}
    else:
        password = _asked(f"{name} {password_field}: ", hidden=True)
    kept = session.providers.set_credentials(name, user or "", password)
    are = "is" if len(kept) == 1 else "are"
    said = f"{name}: {' and '.join(kept)} {are} set"
    return _tell(session, {"name": name, "fields": kept}, said)


def _remove_credentials(session: Session) -> int:
    name = session.arguments.provider
    if not session.providers.remove_credentials(name):
        raise CommandError(f"{name} has no credentials")
    return _tell(session, {"name": name, "removed": True}, f"{name} has no credentials any more")


def _import(session: Session) -> int:
    from ..original_settings import bring, read

    arguments = session.arguments
    if arguments.file == "-":
        text = sys.stdin.read(1 << 20)
    else:
        try:
            text = absolute_text(arguments.file)
        except OSError as error:
            raise CommandError(f"{arguments.file}: {error.strerror}") from error
    found = read(text, arguments.file)
    results = bring(found, session.providers, dry_run=arguments.dry_run)
    if session.json:
        json_document([each.record() for each in results])
    else:
        verb = "would take over" if arguments.dry_run else "took over"
        for each in results:
            if each.fields:
                line(f"{verb} {each.name}: {', '.join(each.fields)}")
            for note in each.notes:
                remark(f"{each.name}: {note}")
    if not any(each.failed for each in results):
        return Exit.DONE
    return Exit.PARTLY if any(each.fields for each in results) else Exit.FAILED


def absolute_text(file: str) -> str:
    """Return a file's text. Raises OSError."""
    from pathlib import Path

    from backupgw.runtime.small_file import read_small_file

    return read_small_file(absolute(Path(file)), 1 << 20).content.decode("utf-8-sig")
