"""`backupgw rest`: restic's REST server with rest-server 0.14's flags, and what its operator needs.

The flags mean what they mean there. Where a default differs it is the safer one: `--listen` is
loopback instead of every address, `--path` is ./data instead of a folder in /tmp.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from backupgw.runtime.command import Command, UsageError, global_options

from . import quota_command, repos_command, trash_commands, user_command, verify_command

if TYPE_CHECKING:
    from backupgw.runtime.settings import Settings

_PLACE = "path"
"""Name of the place that --path makes."""

_DRIME = "drime-of-the-environment"
"""Name of the place that --backend drime makes."""


def _switch(text: str) -> bool:
    """Understand `--flag=true` and `--flag=false`, as rest-server does."""
    match text.lower():
        case "true" | "t" | "1":
            return True
        case "false" | "f" | "0":
            return False
    raise ArgumentTypeError(f"{text!r} is neither true nor false")


def configure(parser: ArgumentParser) -> None:
    """Add the subcommands and their flags."""
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    options = [global_options()]
    quota_command.configure(verbs.add_parser("quota", parents=options, help="list limits and use"))
    repos_command.configure(
        verbs.add_parser("repos", parents=options, help="list repositories with sizes and times")
    )
    trash_commands.configure(
        verbs.add_parser("trash", help="list and bring back what clients have deleted")
    )
    user_command.configure(verbs.add_parser("user", help="add, change, remove and list users"))
    verify_command.configure(
        verbs.add_parser("verify", parents=options, help="re-hash what is stored")
    )
    serve = verbs.add_parser(
        "serve",
        parents=[global_options()],
        help="serve restic repositories",
        description="Serve restic repositories. Every flag can also be set in the section [rest] "
        "of the settings file; the flag wins.",
    )

    def switch(name: str, help_text: str) -> None:
        serve.add_argument(
            name, nargs="?", const=True, type=_switch, metavar="true|false", help=help_text
        )

    serve.add_argument("--path", metavar="DIR", help="folder of the repositories (default: ./data)")
    serve.add_argument(
        "--backend-config",
        metavar="NAME",
        help="serve a backend that `backupgw config add` has named, or any [places.NAME]",
    )
    serve.add_argument(
        "--backend",
        metavar="TYPE",
        help="local (with --path), or drime: the workspace of DRIME_API_KEY, DRIME_API_URL and "
        "DRIME_WORKSPACE_ID",
    )
    serve.add_argument(
        "--workspace-id", metavar="N", type=int, help="with --backend drime: the workspace"
    )
    serve.add_argument(
        "--listen",
        metavar="ADDR",
        action="append",
        help="HOST:PORT, :PORT for every address, or unix:PATH (default: 127.0.0.1:8000); "
        "can be given several times",
    )
    serve.add_argument(
        "--htpasswd-file", metavar="FILE", help="users and hashes (default: DIR/.htpasswd)"
    )
    switch("--no-auth", "serve whoever can connect")
    serve.add_argument(
        "--proxy-auth-username",
        metavar="HEADER",
        help="take the user from this header, which a trusted proxy sets",
    )
    switch("--append-only", "clients can add, but delete nothing except locks")
    switch("--private-repos", "users can only use repositories below their own name")
    switch("--group-accessible-repos", "let the group read and write what is stored")
    switch("--no-verify-upload", "do not check that uploads hash to their names")
    serve.add_argument(
        "--max-size", metavar="BYTES", type=int, help="limit for all repositories together"
    )
    switch("--tls", "serve TLS")
    serve.add_argument("--tls-cert", metavar="FILE", help="certificate (default: DIR/public_key)")
    serve.add_argument("--tls-key", metavar="FILE", help="private key (default: DIR/private_key)")
    serve.add_argument(
        "--tls-min-ver", choices=["1.2", "1.3"], help="lowest version (default: 1.2)"
    )
    serve.add_argument(
        "--log", metavar="FILE", help="access log in Apache's combined format; - is standard output"
    )
    switch("--prometheus", "answer /metrics")
    switch("--prometheus-no-auth", "answer /metrics without a password")
    serve.add_argument(
        "--workers", metavar="N", type=int, help="processes (default: as many as cores, 4 at most)"
    )
    serve.add_argument(
        "--cpu-profile", metavar="FILE", help="write a profile there when the server stops"
    )


def run(options: Namespace) -> int:
    """Do what the subcommand says; return the exit status."""
    match options.verb:
        case "quota":
            return quota_command.run(options)
        case "repos":
            return repos_command.run(options)
        case "trash":
            return trash_commands.run(options)
        case "user":
            return user_command.run(options)
        case "verify":
            return verify_command.run(options)
        case _:
            return _serve(options)


def _serve(options: Namespace) -> int:
    from backupgw.runtime.commands.serve import serve
    from backupgw.runtime.settings import load

    wanted = overrides(options)
    wanted |= _certificate(load(options.config, wanted, serving={"rest"}))
    return serve(options, wanted, only="rest")


def _certificate(settings: Settings) -> dict[str, Any]:
    """Return rest-server's names for the pair that TLS needs, where none were given."""
    from backupgw.runtime.settings_sources import Flag

    from .identification import place_folder
    from .settings import RestSettings

    rest = settings.section("rest", RestSettings)
    folder = place_folder(settings)
    if folder is None or not rest.tls:
        return {}
    names = {"tls_cert": "public_key", "tls_key": "private_key"}
    return {
        f"rest.{key}": Flag("--tls", str(folder / name))
        for key, name in names.items()
        if getattr(rest, key) is None
    }


def place_overrides(path: str | None) -> dict[str, Any]:
    """Return what `--path` sets."""
    from backupgw.runtime.settings_sources import Flag

    if path == "":
        raise UsageError("--path is empty; name the folder of the repositories")
    if path is None:
        return {}
    url = f"file://{quote(os.path.abspath(path))}"
    return {
        f"places.{_PLACE}.url": Flag("--path", url),
        "rest.place": Flag("--path", _PLACE),
    }


def backend_overrides(options: Namespace) -> dict[str, Any]:
    """Return what pyrestserver's flags for backends set.

    Raises:
        UsageError: they do not go together.
    """
    from backupgw.runtime.settings_sources import Flag

    name, kind = options.backend_config, options.backend
    if options.workspace_id is not None and kind != "drime":
        raise UsageError("--workspace-id belongs to --backend drime")
    if name is not None:
        if options.path is not None or options.workspace_id is not None:
            raise UsageError("--backend-config says where the repositories are: nothing beside it")
        if kind is not None:
            _require_kind(options, name, kind)
        return {"rest.place": Flag("--backend-config", name)}
    if kind not in (None, "local", "drime"):
        raise UsageError(f"--backend {kind}: there is local and drime; name others by `config add`")
    if kind != "drime":
        return {}
    if options.path is not None:
        raise UsageError(
            "--path belongs to --backend local; a folder in Drime is named by "
            "`backupgw config add NAME --type drime --path FOLDER`"
        )
    found: dict[str, Any] = {
        f"places.{_DRIME}.url": Flag("--backend", "drime:"),
        "rest.place": Flag("--backend", _DRIME),
    }
    if options.workspace_id is not None:
        number = options.workspace_id
        found[f"places.{_DRIME}.workspace_id"] = Flag("--workspace-id", number)
    return found


def _require_kind(options: Namespace, name: str, kind: str) -> None:
    from backupgw.runtime.settings import load

    place = load(options.config, serving=()).places.get(name)
    scheme = None if place is None else place.url.partition(":")[0].lower()
    if scheme is not None and scheme != {"local": "file"}.get(kind, kind):
        raise UsageError(f"--backend {kind}: the backend {name} is of another type, {scheme}:")


def overrides(options: Namespace) -> dict[str, Any]:
    """Return what the flags set, as settings by their dotted keys."""
    from backupgw.runtime.settings_sources import Flag

    found: dict[str, Any] = {}

    def flag(key: str, name: str, value: Any) -> None:
        if value is not None:
            found[key] = Flag(name, value)

    found |= place_overrides(options.path) | backend_overrides(options)
    if options.no_verify_upload is not None:
        flag("rest.verify_upload", "--no-verify-upload", not options.no_verify_upload)
    flag("rest.tls_cert", "--tls-cert", options.tls_cert)
    flag("rest.tls_key", "--tls-key", options.tls_key)
    if options.group_accessible_repos:
        flag("rest.socket_mode", "--group-accessible-repos", 0o660)
    for name, key in {
        "listen": "listen",
        "htpasswd_file": "htpasswd_file",
        "no_auth": "no_auth",
        "proxy_auth_username": "proxy_auth_username",
        "append_only": "append_only",
        "private_repos": "private_repos",
        "group_accessible_repos": "group_accessible_repos",
        "max_size": "max_size",
        "tls": "tls",
        "tls_min_ver": "tls_min_version",
        "log": "access_log",
        "prometheus": "metrics",
        "prometheus_no_auth": "metrics_open",
        "workers": "workers",
        "cpu_profile": "cpu_profile",
    }.items():
        flag(f"rest.{key}", f"--{name.replace('_', '-')}", getattr(options, name))
    return found


command = Command(
    name="rest", help="serve restic repositories (REST protocol)", configure=configure, run=run
)
