"""The sections of the settings file that belong to the gateway itself, by name.

`[log]` and `[places.NAME]` are not among them: everything needs these, so `Settings` has them as
attributes. What is here is found by `settings.section(NAME, MODEL)`, as a service's section is.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from .events.settings import EventsSettings
from .settings_auth import AuthSettings
from .settings_jobs import JobsSettings
from .settings_state import StateSettings
from .settings_tokens import TokenSettings

GATEWAY_SECTIONS: Mapping[str, type[BaseModel]] = {
    "state": StateSettings,
    "auth": AuthSettings,
    "tokens": TokenSettings,
    "events": EventsSettings,
    "jobs": JobsSettings,
}
"""In the order of the sample file."""
