"""Both APIs do what their OpenAPI documents say, whatever they are sent (Schemathesis)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance
from tests.conftest import SOAK
from tests.servers.vfs_gateway import MANAGER_TOKEN, VfsGateway

from backupgw.runtime.threads import Threads
from backupgw.vfsproxy.api.about import about
from backupgw.vfsproxy.api.app import Api
from backupgw.vfsproxy.api.cors import Cors
from backupgw.vfsproxy.api.models import Model
from backupgw.vfsproxy.api.operation import Answer, Call
from backupgw.vfsproxy.api.router import Router
from backupgw.vfsproxy.api.volume_routes import volume_operations
from backupgw.vfsproxy.authentication import MANAGER_SECURITY, ManagerAuthentication
from backupgw.vfsproxy.tus.headers import OCTETS

from .conftest import Inside

SETTINGS = settings(
    max_examples=200 if SOAK else 2,
    deadline=None,
    database=None,
    derandomize=not SOAK,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

SHARES = 10 if SOAK else 1
"""Parts of an API's operations, each a test of its own: all in one would take very long."""

schemathesis.serializer.alias(OCTETS, "application/octet-stream")

LEFT_OUT = [
    # That nobody gets in without a token is shown elsewhere: here, each request has one.
    ignored_auth,
    # Rules between fields (a folder has one owner) and of names are no part of a schema.
    positive_data_acceptance,
]


def mistakes(schema: Any, headers: Mapping[str, str], share: int = 0) -> dict[str, str]:
    """Return what is wrong with the answers of an API, by operation."""
    found: dict[str, str] = {}
    for number, result in enumerate(schema.get_all_operations()):
        if number % SHARES != share:
            continue
        operation: Any = result.ok()
        for mode in GenerationMode:

            @SETTINGS
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers_as_documented(case: Any) -> None:
                answer = case.call(headers=dict(headers))
                if not of_the_host(answer):
                    case.validate_response(answer, excluded_checks=LEFT_OUT)

            try:
                answers_as_documented()
            except FailureGroup as group:
                found[operation.label] = "\n".join(str(part) for part in group.exceptions)
            except Unsatisfiable:
                continue  # nothing can be wrong about a request without parameters
    return found


def of_the_host(answer: Any) -> bool:
    """Whether no API has seen the request: its head was too long, or not HTTP."""
    malformed = answer.status_code == 400 and answer.content == b"Malformed HTTP request.\n"
    return bool(answer.status_code == 431 or malformed)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("share", range(SHARES))
def test_the_api_for_clients(gateway: VfsGateway, share: int) -> None:
    schema = schemathesis.openapi.from_url(f"{gateway.url}/openapi.json")
    headers = {"authorization": f"Bearer {gateway.key('schemathesis')}"}
    assert mistakes(schema, headers, share) == {}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("share", range(SHARES))
def test_the_api_for_managers(gateway: VfsGateway, share: int) -> None:
    schema = schemathesis.openapi.from_url(f"{gateway.manager_url}/openapi.json")
    headers = {"x-backendai-storage-auth-token": MANAGER_TOKEN}
    assert mistakes(schema, headers, share) == {}


class _Volume(Model):
    """What a program would write that forgot what it had promised."""

    items: int = 3


def _breaks(_call: Call[Any, Any]) -> None:
    raise ZeroDivisionError


def _says_what_is_not_documented(_call: Call[Any, Any]) -> Answer:
    return Answer(_Volume(), status=418)


def _answers_something_else(_call: Call[Any, Any]) -> _Volume:
    return _Volume()


@pytest.mark.parametrize(
    ("bug", "told"),
    [
        (_breaks, "Server error"),
        (_says_what_is_not_documented, "Undocumented status code"),
        (_answers_something_else, "Response violates schema"),
    ],
)
def test_a_bug_is_found(inside: Inside, bug: Any, told: str) -> None:
    operations = [
        dataclasses.replace(operation, handler=bug)
        if operation.path == "/v1/volumes"
        else operation
        for operation in volume_operations(inside.core)
        if operation.path == "/v1/volumes"
    ]
    operations += about(operations, "tried", "manager-facing", MANAGER_SECURITY)
    threads = Threads(2, "tried")
    api = Api(
        Router(operations),
        ManagerAuthentication(MANAGER_TOKEN),
        threads,
        Cors(["*"]),
        ready=lambda: True,
        observe=lambda *_: None,
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await api(scope, receive, send)

    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    headers = {"x-backendai-storage-auth-token": MANAGER_TOKEN}
    found: dict[str, str] = {}
    for share in range(SHARES):
        found |= mistakes(schema, headers, share)
    assert list(found) == ["GET /v1/volumes"]
    assert told in found["GET /v1/volumes"]
