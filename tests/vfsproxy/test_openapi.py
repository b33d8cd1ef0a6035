"""Both APIs do what their OpenAPI documents say, whatever they are sent (Schemathesis)."""

from __future__ import annotations

import contextlib
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
from backupgw.vfsproxy.api.models import Limit, Model
from backupgw.vfsproxy.api.operation import Answer, Call, Operation
from backupgw.vfsproxy.api.router import Router
from backupgw.vfsproxy.api.volume_routes import volume_operations
from backupgw.vfsproxy.authentication import MANAGER_SECURITY, ManagerAuthentication
from backupgw.vfsproxy.tus.headers import OCTETS

from .conftest import Inside

SETTINGS = settings(
    deadline=None,
    database=None,
    derandomize=not SOAK,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

EXAMPLES = 200 if SOAK else 2
"""Requests to each operation that do as it says, and as many that do not."""

SHARES = 10 if SOAK else 1
"""Parts of an API's operations, each a test of its own: all in one would take very long."""

schemathesis.serializer.alias(OCTETS, "application/octet-stream")

LEFT_OUT = [
    # That nobody gets in without a token is shown elsewhere: here, each request has one.
    ignored_auth,
    # Rules between fields (a folder has one owner) and of names are no part of a schema.
    positive_data_acceptance,
]


def mistakes(
    schema: Any, headers: Mapping[str, str], share: int = 0, examples: int = EXAMPLES
) -> dict[str, str]:
    """Return what is wrong with the answers of an API, by operation."""
    # Each request has its token, put in after all else: a token that is taken away is none.
    schema.config.generation.update(with_security_parameters=False)
    found: dict[str, str] = {}
    for number, result in enumerate(schema.get_all_operations()):
        if number % SHARES != share:
            continue
        operation: Any = result.ok()
        for mode in GenerationMode:
            if mistake := _mistake(operation, mode, headers, examples):
                found[operation.label] = mistake
    return found


def _mistake(
    operation: Any, mode: GenerationMode, headers: Mapping[str, str], examples: int
) -> str | None:
    last = ""

    @settings(SETTINGS, max_examples=examples)
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers_as_documented(case: Any) -> None:
        nonlocal last
        answer = case.call(headers=dict(headers))
        last = f"{answer.request.method} {answer.request.url}"
        if not of_the_host(answer):
            case.validate_response(answer, excluded_checks=LEFT_OUT)

    try:
        answers_as_documented()
    except FailureGroup as group:
        return "\n".join([*(str(part) for part in group.exceptions), last])
    except Unsatisfiable:
        pass  # nothing can be wrong about a request without parameters
    return None


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


class _Strict(Model):
    """What a document says of a number."""

    limit: Limit = 100


class _Loose(Model):
    """What is made of it."""

    limit: str = "100"


def _counts(call: Call[Any, Any]) -> _Volume:
    with contextlib.suppress(ValueError):
        return _Volume(items=int(call.parameters.limit))
    return _Volume()


def found_in(
    served: list[Operation], documented: list[Operation], examples: int = EXAMPLES
) -> dict[str, str]:
    """Return what is wrong with the answers of operations, by the document of others."""
    operations = served + about(documented, "tried", "manager-facing", MANAGER_SECURITY)
    api = Api(
        Router(operations),
        ManagerAuthentication(MANAGER_TOKEN),
        Threads(2, "tried"),
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
        found |= mistakes(schema, headers, share, examples)
    return found


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
        for operation in volume_operations(inside.core)
        if operation.path == "/v1/volumes"
    ]
    found = found_in(operations, operations)
    assert list(found) == ["GET /v1/volumes"]
    assert told in found["GET /v1/volumes"]


def test_what_takes_more_than_its_document_says_is_found() -> None:
    strict = Operation("GET", "/v1/tried", _counts, "Count", _Strict, answer=_Volume)
    assert found_in([strict], [strict], examples=50) == {}
    loose = dataclasses.replace(strict, parameters=_Loose)
    found = found_in([loose], [strict], examples=50)
    assert "Schema-violating request accepted" in found["GET /v1/tried"]
