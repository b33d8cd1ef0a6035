"""`backupgw borg`: borgstore's REST server with the flags of borgstore 0.7's."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from backupgw.runtime.command import Command, UsageError, global_options

_PLACE = "backend"
"""Name of the place that --backend and --path make."""


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    serve = verbs.add_parser(
        "serve",
        parents=[global_options()],
        help="serve a store to Borg 2 and other clients of borgstore",
        description="Serve one store. Every flag can also be set in the section [borg] of the "
        "settings file; the flag wins.",
    )
    add = serve.add_argument
    add("--backend", metavar="URL", help="the store: file:///srv/borg, or FILE:relative/path")
    add("--path", metavar="DIR", help="the store's folder; the same as --backend FILE:DIR")
    add(
        "--listen",
        metavar="ADDR",
        action="append",
        help="HOST:PORT, :PORT for every address, or unix:PATH (default: 127.0.0.1:5618); "
        "can be given several times",
    )
    add("--host", metavar="HOST", help="as in borgstore: the address of --listen")
    add("--port", metavar="PORT", type=int, help="as in borgstore: the port of --listen")
    add("--htpasswd-file", metavar="FILE", help="users and hashes")
    add("--username", metavar="USER", help="the one user there is")
    add(
        "--password",
        metavar="PASSWORD",
        help="of that user; others can see it in the list of processes, the section [borg] can "
        'name a file instead: password = { file = "…" }',
    )
    add("--no-auth", action="store_const", const=True, help="serve whoever can connect")
    add(
        "--permissions",
        metavar="WHAT",
        help="borgbackup-all, borgbackup-no-delete, borgbackup-write-only, borgbackup-read-only, "
        "or a JSON object of letters by name",
    )
    add("--quota", metavar="BYTES", type=int, help="limit for the store")
    add(
        "--socket-activation",
        action="store_true",
        help="insist on a socket that systemd hands over (it is taken anyway)",
    )
    add("--stdio", action="store_true", help="serve one client on standard input and output")
    add("--tls", action="store_const", const=True, help="serve TLS")
    add("--tls-cert", metavar="FILE", help="certificate")
    add("--tls-key", metavar="FILE", help="private key")
    add("--log", metavar="FILE", help="access log in Apache's combined format; - for stdout")
    add("--workers", metavar="N", type=int, help="processes (default: 1)")


def run(options: Namespace) -> int:
    """Serve until stopped; return the exit status."""
    from backupgw.runtime.commands.serve import serve

    wanted = overrides(options)
    if options.socket_activation and os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise UsageError("--socket-activation: systemd handed over no socket (LISTEN_FDS)")
    if not options.stdio:
        return serve(options, wanted, only="borg")
    from .stdio import Conversation

    conversation = Conversation()
    try:
        return serve(options, wanted, only="borg", connection=conversation.sock)
    finally:
        conversation.close()


def overrides(options: Namespace) -> dict[str, Any]:
    """Return what the flags set, as settings by their dotted keys.

    Raises:
        UsageError: flags that do not go together.
    """
    from backupgw.runtime.settings_sources import Flag

    found: dict[str, Any] = {}
    if options.backend is not None and options.path is not None:
        raise UsageError("give either --backend or --path")
    if options.path is not None:
        options.backend = f"FILE:{options.path}"
    if options.backend is not None:
        found[f"places.{_PLACE}.url"] = Flag("--backend", _url(options.backend))
        found["borg.place"] = Flag("--backend", _PLACE)
    if options.listen is None and (options.host is not None or options.port is not None):
        host = options.host or "127.0.0.1"
        shown = f"[{host}]" if ":" in host else host
        options.listen = [f"{shown}:{5618 if options.port is None else options.port}"]
    elif options.host is not None or options.port is not None:
        raise UsageError("give either --listen, or --host and --port")
    if options.stdio:
        # ssh has told who it is; a password would have to come from the far end's command line.
        if options.username is None and options.htpasswd_file is None:
            found["borg.no_auth"] = Flag("--stdio", True)
        found["borg.workers"] = Flag("--stdio", 1)
    for name, key in {
        "listen": "listen",
        "htpasswd_file": "htpasswd_file",
        "username": "username",
        "password": "password",
        "no_auth": "no_auth",
        "permissions": "permissions",
        "quota": "quota",
        "tls": "tls",
        "tls_cert": "tls_cert",
        "tls_key": "tls_key",
        "log": "access_log",
        "workers": "workers",
    }.items():
        value = getattr(options, name)
        if value is not None:
            found[f"borg.{key}"] = Flag(f"--{name.replace('_', '-')}", value)
    return found


def _url(backend: str) -> str:
    """Return the URL of --backend; borgstore's FILE: is relative to the current folder."""
    if backend.startswith("FILE:"):
        return Path(backend.removeprefix("FILE:")).expanduser().absolute().as_uri()
    return backend


command = Command(
    name="borg", help="serve a store to Borg 2 (borgstore's protocol)", configure=configure, run=run
)
