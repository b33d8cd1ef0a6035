"""The sections that every gateway has: `[log]` and `[places.NAME]`. Services bring their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from backupgw.kvstore.registry import schemes

from .log import Format, Level
from .secrets import Secret, redact_url
from .settings_errors import did_you_mean
from .settings_layers import LayerSetting, hide_secrets, secret_option
from .settings_loki import LokiSettings


class LogSettings(BaseModel):
    """Section `[log]`: what is logged, to standard error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: Level = Field("info", description="debug, info, warning or error")
    format: Format = Field(
        "auto", description="human, json, or auto: human on a terminal, json elsewhere"
    )
    loki: LokiSettings | None = Field(
        None, description="a Grafana Loki that gets all records too; a table, [log.loki]"
    )

    @field_validator("level", "format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class PlaceSettings(BaseModel):
    """Section `[places.NAME]`: where bytes live. What has no field is the backend's own option."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, BeforeValidator(secret_option)]]

    url: str = Field(
        min_length=1,
        description="what the place is; the scheme says which backend: file:///srv/backup",
    )
    layers: list[LayerSetting] = Field(
        default=[],
        description='what lies around it, outermost first: ["observe", { layer = "retry" }]',
    )

    claims: bool = Field(
        True,
        description="whether gateways that share their state take turns with a name, where the "
        "place itself cannot refuse a second one (Google Drive, B2, Drime, rclone)",
    )

    @model_validator(mode="before")
    @classmethod
    def _hide(cls, values: object) -> object:
        return hide_secrets(values) if isinstance(values, Mapping) else values

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", url):
            hint = f'; did you mean "file://{quote(url)}"?' if url.startswith("/") else ""
            raise ValueError(f'is not a URL; write one such as "file:///srv/backup"{hint}')
        scheme = url.partition(":")[0].lower()
        if scheme not in (known := schemes()):
            raise ValueError(
                f"no backend for {scheme}: is installed; {did_you_mean(scheme, known)}"
            )
        return url

    def options(self) -> dict[str, Any]:
        """Return the backend's options, secrets revealed.

        Raises:
            SecretError: one cannot be had.
        """
        return {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in (self.__pydantic_extra__ or {}).items()
        }

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if name == "url" else value
