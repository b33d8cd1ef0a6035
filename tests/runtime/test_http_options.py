"""The HTTP settings: their defaults, and what is said about a wrong one."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError

from backupgw.runtime.http.options import HttpOptions


def test_defaults_serve_this_machine_only() -> None:
    options = HttpOptions()
    assert options.listen == ["127.0.0.1:8000"]
    assert options.socket_mode == 0o600
    assert options.idle_timeout >= 90  # restic keeps connections that long


def test_forms_that_the_environment_and_flags_bring() -> None:
    options = HttpOptions.model_validate(
        {"listen": ":1, unix:/run/x", "socket_mode": "0660", "access_log": "", "workers": "2"}
    )
    assert options.listen == [":1", "unix:/run/x"]
    assert options.socket_mode == 0o660
    assert options.access_log is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("listen", "8000", "'8000' has no port; write"),
        ("listen", [], "no address"),
        ("listen", [8000], "8000 is no address"),
        ("listen", 8000, "8000 is no list of addresses"),
        ("socket_mode", 600, r"600 is no file mode|without access; write 0o600"),
        ("socket_mode", 0o077, "without access; write 0o600"),
        ("socket_mode", "rw", "'rw' is no file mode; write 0o600"),
        ("socket_mode", True, "no file mode"),
        ("tls_cert", "/x.pem", "tls_cert without tls; set tls = true"),
        ("tls_min_version", "1.1", "'1.2' or '1.3'"),
        ("workers", 0, "greater than or equal to 1"),
        ("header_timeout", 0, "greater than 0"),
        ("max_connections", -1, "greater than or equal to 0"),
        ("surprise", 1, "not permitted"),
    ],
)
def test_a_bad_value_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HttpOptions.model_validate({name: value})


class OtherService(HttpOptions):
    listen: list[str] = Field(default=[":1"])


def test_a_service_with_another_default_gets_no_wrong_address() -> None:
    assert OtherService().listen == [":1"]
    assert OtherService.model_validate({"listen": "127.0.0.1:2"}).listen == ["127.0.0.1:2"]
    with pytest.raises(ValidationError, match="is no port"):
        OtherService.model_validate({"listen": ["127.0.0.1:99999"]})
