"""`backupgw serve`: all enabled services in one command."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..command import Command

if TYPE_CHECKING:
    import socket

    from ..settings import Settings


def configure(parser: ArgumentParser) -> None:
    """No options of its own: what is served is in the settings."""
    parser.epilog = (
        "Serves every installed service whose section does not say enabled = false. With no "
        "settings at all: restic's REST protocol on 127.0.0.1:8000, backups below ./data."
    )


def run(arguments: Namespace) -> int:
    """Load the settings and serve until told to stop."""
    return serve(arguments)


def serve(
    arguments: Namespace,
    overrides: Mapping[str, Any] | None = None,
    only: str | Sequence[str] | None = None,
    *,
    connection: socket.socket | None = None,
) -> int:
    """Serve, and return the exit status.

    Args:
        arguments: with `config` and `debug`, as every command has them.
        overrides: what the command's own flags say (`settings.load`).
        only: the service or services to serve, enabled or not; default all enabled ones.
        connection: talk to the client at its other end instead of listening, until it hangs up.

    Raises:
        SettingsError: the settings are wrong, or a service refuses to start with them.
        CommandError: nothing is enabled, or the host cannot start.
    """
    from .. import log, state_folder
    from ..command import CommandError
    from ..http.host import Hosted, run_on
    from ..http.host import run as host
    from ..services import import_function, installed_services
    from ..settings import load

    overrides = dict(overrides or {})
    if arguments.debug:
        overrides["log.level"] = "debug"
    services = installed_services()
    named = None if only is None else [only] if isinstance(only, str) else list(only)
    settings = load(arguments.config, overrides, serving=named)
    _configure_log(settings)
    logger = log.get_logger(__name__)
    for warning in settings.warnings:
        logger.warning(warning)
    wanted = named if named is not None else sorted(settings.enabled)
    if not wanted:
        raise CommandError(
            "no service is enabled; set enabled = true in a service's section, or install one"
        )
    for name in wanted:
        if (check := services[name].check) is not None:
            import_function(check)(settings)
    if state_folder.database_there(settings):  # the import is worth a fifth of a second
        from ..database.state import require_state

        require_state(settings)
    hosted = []
    for name in wanted:
        service = services[name]
        if service.prepare is not None:
            text = import_function(service.prepare)(settings)
            # A service started by itself, by systemd say, keeps its log free of advice.
            if text and (only is None or sys.stderr.isatty()):
                print(text, file=sys.stderr, flush=True)  # noqa: T201
        options = settings.section(name)
        if service.options is not None:
            options = import_function(service.options)(settings)
        hosted.append(
            Hosted(
                name=name,
                app="backupgw.runtime.commands.serve:build",
                argument=(service.app, settings),
                options=options,
                modules=(service.app.partition(":")[0], *service.modules),
            )
        )
    return host(hosted) if connection is None else run_on(hosted[0], connection)


def build(argument: tuple[str, Settings]) -> Any:
    """Return a service's ASGI application; called in each worker, which then logs as told."""
    from ..services import import_function

    app, settings = argument
    _configure_log(settings)
    return import_function(app)(settings)


def _configure_log(settings: Settings) -> None:
    from .. import log

    loki = settings.log.loki
    try:
        log.configure(
            settings.log.level, settings.log.format, loki=None if loki is None else loki.open()
        )
    except OSError as error:
        raise settings.mistake(
            f"cannot be used: {error.strerror or error}", "log", "loki", "ca_file"
        ) from error


command = Command(
    name="serve", help="serve every enabled service until stopped", configure=configure, run=run
)
