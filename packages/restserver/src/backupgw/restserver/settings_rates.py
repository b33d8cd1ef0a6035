"""The section [rest.rates]: what one address and one user may ask for in a time."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from backupgw.kvstore.layers.options import OptionInvalid
from backupgw.kvstore.layers.throttle_rate import timetable

from .rates import Allowed, Rules

_SLOWEST = 10_000
"""Bytes a second: restic gives up a request that has not moved for five minutes."""

_BURST = 10
"""Seconds' worth of requests that may come at once, unless the settings say otherwise."""


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[list[str], BeforeValidator(_one_or_more), Field(min_length=1)]


class AddressRates(BaseModel):
    """What every address may ask for; IPv6 by /64.

    Attributes:
        requests: a second; more are refused with 429.
        burst: requests that may come at once after a pause; default ten seconds' worth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: float | None = Field(default=None, gt=0)
    burst: float | None = Field(default=None, ge=1)

    def _first(self) -> float:
        return self.burst or max(_BURST * (self.requests or 0), 1.0)

    def allowed(self) -> Allowed:
        """Return it as the limiter knows it."""
        return Allowed(requests=self.requests, burst=self._first())


class UserRates(AddressRates):
    """One [[rest.rates.user]].

    Attributes:
        who: users, as patterns: "ann", "*".
        connections: requests at the same time, in each worker; more are refused with 429.
        upload: how fast a user's bodies are taken, all connections together: "20 MB/s", or a
            timetable as the layer throttle has it.
        download: the same for what a user reads.
    """

    who: Patterns
    connections: int | None = Field(default=None, ge=1)
    upload: str | None = None
    download: str | None = None

    @field_validator("who")
    @classmethod
    def _no_groups(cls, who: list[str]) -> list[str]:
        if any(pattern.startswith("@") for pattern in who):
            raise ValueError("names users, as patterns; a rate is each user's own, not a group's")
        return who

    @field_validator("upload", "download")
    @classmethod
    def _rate(cls, rate: str | None) -> str | None:
        if rate is not None:
            try:
                found = timetable("rate", rate)
            except OptionInvalid as error:
                raise ValueError(error.message) from None
            if any(each is not None and each < _SLOWEST for _, each in found.entries):
                raise ValueError(f"restic gives up what is slower than {_SLOWEST} bytes a second")
        return rate

    def allowed(self) -> Allowed:
        """Return it as the limiter knows it."""
        return Allowed(
            requests=self.requests,
            burst=self._first(),
            connections=self.connections,
            upload=None if self.upload is None else timetable("upload", self.upload),
            download=None if self.download is None else timetable("download", self.download),
        )


class RatesSettings(BaseModel):
    """Rates and connections.

    Attributes:
        address: of every address.
        user: of users, as [[rest.rates.user]]; the first that fits.
        exempt: networks that have no limit by address, such as "10.0.0.0/8" or a proxy's address.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: AddressRates = AddressRates()
    user: tuple[UserRates, ...] = ()
    exempt: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def rules(self) -> Rules:
        """Return them as the limiter knows them."""
        return Rules(
            self.address.allowed(),
            tuple((tuple(each.who), each.allowed()) for each in self.user),
            self.exempt,
        )
