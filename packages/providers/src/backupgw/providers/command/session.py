"""What the verbs of `backupgw provider` share: the providers, and what is remembered of them."""

from __future__ import annotations

import gc
import sys
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from backupgw.kvstore.backends.errors import (
    BackendDoesNotExist,
    BackendError,
    ObjectNotFound,
    PermissionDenied,
)
from backupgw.kvstore.layers.encrypt_stretching import Stretch
from backupgw.runtime import log_later, state_folder
from backupgw.runtime.command import CommandError
from backupgw.runtime.commands.store.output import error_text
from backupgw.runtime.commands.store.progress import Show

from ..base import BaseProvider
from ..configured import Configured, ConfiguredProviders
from ..crew import Crew, crew_for, workers_of
from ..journal import ABANDONED
from ..moves import Move, upload
from ..place_provider import PlaceProvider
from ..state import ProviderState, Record, add_calls

CLEANED_EVERY = 86_400.0
"""Seconds after which what interrupted uploads left is looked for again."""


class Session:
    """One run of the command; a context manager.

    Attributes:
        arguments: what the user said.
        providers: those that are configured.
    """

    def __init__(self, arguments: Namespace) -> None:
        self.arguments = arguments
        log_later.configure("debug" if arguments.debug else "warning")
        self._state = state_folder.of_command(arguments.config)
        self.providers = ConfiguredProviders.beside(arguments.config)
        self._open: dict[str, BaseProvider] = {}
        self._crews: list[Crew] = []

    @property
    def json(self) -> bool:
        """Whether the answer is JSON."""
        return bool(self.arguments.json)

    @property
    def show(self) -> Show:
        """How progress is shown."""
        terminal = sys.stderr.isatty() and sys.stdout.isatty() and not self.json
        return Show.BAR if terminal else Show.LINES

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for crew in self._crews:
            crew.dismiss()
        for name, provider in self._open.items():
            self._remember(name, provider)
            provider.close()

    def chosen(self, names: list[str]) -> list[Configured]:
        """Return the providers of these names, without names all that are enabled.

        Raises:
            CommandError: none is enabled.
        """
        if names:
            return [self.providers.get(name) for name in dict.fromkeys(names)]
        if not (found := self.providers.enabled()):
            raise CommandError(self.providers.nobody())
        return found

    def state(self, name: str) -> ProviderState:
        """Return what is remembered of a provider."""
        return ProviderState(self._state, name)

    def provider(self, name: str) -> BaseProvider:
        """Return a provider, ready to be used.

        Raises:
            CommandError: it is not configured as it must be.
            BackendError: a library or program that it needs is missing.
        """
        if name not in self._open:
            state = self.state(name)
            try:
                provider = self.providers.make(name)
            except BackendError as error:
                raise CommandError(f"{name}: {error_text(error)}") from error
            if isinstance(provider, PlaceProvider):
                record = state.read()
                provider.opening.stretch_early(Stretch.of_record(record.get("stretch")))
                if record.get("known"):
                    # It was there once: where it is not any more, something is not mounted.
                    provider.opening.create_missing = False
                provider.transfers.journal = state.journal()
                if not self.arguments.debug:
                    provider.logger.setLevel("CRITICAL")  # the command says what failed
            else:
                gc.enable()
            self._open[name] = provider
        return self._open[name]

    def crew(self, name: str, move: Move, jobs: int | None) -> Crew | None:
        """Return processes that move small files by a provider that was not used yet, where they
        are of use. Raises as `provider` does."""
        provider = self.provider(name)
        if not isinstance(provider, PlaceProvider) or not provider.processes:
            return None
        try:
            overlap = provider.overlap if jobs is None and move is upload else 1
            crew = crew_for(provider, move, workers_of(provider, jobs), overlap)
        except BackendError as error:
            raise CommandError(f"{name}: {explained(name, error)}") from error
        finally:
            gc.enable()
        if crew is not None:
            self._crews.append(crew)
        return crew

    def place_provider(self, name: str) -> PlaceProvider:
        """Return a provider with a place behind it, open.

        Raises:
            CommandError: it is somebody else's, which keeps whole files only, or it cannot be
                opened.
        """
        provider = self.provider(name)
        if not isinstance(provider, PlaceProvider):
            raise CommandError(f"{name}: is a provider that can only store and fetch whole files")
        try:
            provider.open()
        except BackendError as error:
            raise CommandError(f"{name}: {explained(name, error)}") from error
        gc.enable()
        return provider

    def _remember(self, name: str, provider: BaseProvider) -> None:
        if not isinstance(provider, PlaceProvider):
            return
        state = self.state(name)
        counts = Counter(provider.calls.take())
        counts.update(state.logged_calls())
        known = state.read()
        learnt: Record = {"known": True} if provider.opening.done else {}
        due = bool(counts) or (provider.opening.done and not known.get("known"))
        if (stretch := provider.opening.stretch) is not None:
            learnt["stretch"] = stretch.record()
        if due or ("stretch" in learnt and learnt["stretch"] != known.get("stretch")):
            try:
                with state.changing() as record:
                    add_calls(record, time.strftime("%Y-%m", time.gmtime()), counts)
                    record.update(learnt)
            except CommandError:
                if due:
                    raise  # without it, the next command begins a little later
        if due:
            _count(name, provider, counts)

    def tidy(self, name: str) -> None:
        """Once a day, clear away what interrupted uploads have left; failing that is no failure."""
        provider = self.provider(name)
        if not isinstance(provider, PlaceProvider):
            return
        state = self.state(name)
        if time.time() - float(state.read().get("cleaned", 0)) < CLEANED_EVERY:
            return
        try:
            clean(provider, ABANDONED)
        except BackendError as error:
            provider.logger.info("clearing away failed: %s", error)
            return
        with state.changing() as record:
            record["cleaned"] = int(time.time())


def clean(provider: PlaceProvider, older_than: float) -> int:
    """Clear away what interrupted uploads left more than so many seconds ago; return how many."""
    place = provider.open()
    return provider.transfers.journal.clean(place, older_than) + place.reap(older_than)


def explained(name: str, error: BaseException) -> str:
    """Return what an error says, with what to do where that is known."""
    text = error_text(error)
    if isinstance(error, ObjectNotFound):
        return "there is no such file"
    if isinstance(error, BackendDoesNotExist):
        return (
            f"{text}; if it was there before, see that it is mounted; to have it made: "
            f"backupgw provider test {name} --create"
        )
    if isinstance(error, PermissionDenied) and not isinstance(error.__cause__, OSError):
        return f"{text}; `backupgw provider set-credentials {name}` sets another login"
    return text


def _count(name: str, provider: PlaceProvider, counts: dict[str, int]) -> None:
    from backupgw.runtime.metrics import counter

    metric = counter(
        "backupgw_provider_calls_total",
        "Requests to a provider's service, by the class of its price list.",
        ("provider", "call", "cost"),
    )
    for call, count in counts.items():
        metric.add(count, name, call, provider.costs.of(call) if provider.costs else "")


def absolute(path: Path) -> Path:
    """Return a path without `~`, as it is from here."""
    return path.expanduser().absolute()
