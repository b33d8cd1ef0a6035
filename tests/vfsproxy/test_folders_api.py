"""Folders over HTTP: as documented, and refused as documented."""

from __future__ import annotations

import httpx
import pytest
from tests.servers.vfs_gateway import VfsGateway


def make(client: httpx.Client, name: str, **more: object) -> dict[str, object]:
    answer = client.post("/v1/folders", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/folders/{answer.json()['id']}"
    return answer.json()  # type: ignore[no-any-return]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    assert (answer.status_code, answer.json()["error_code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["access-control-allow-origin"] == "*"
    return answer.json()  # type: ignore[no-any-return]


def test_a_folder_s_life(gateway: VfsGateway) -> None:
    with gateway.client("life") as client:
        folder = make(client, "documents", limits={"bytes": 1000, "files": 10})
        url = f"/v1/folders/{folder['id']}"
        assert folder["status"] == "ready"
        assert folder["quota"]["limit_bytes"] == 1000  # type: ignore[index]
        problem(client.post("/v1/folders", json={"name": "documents"}), 409, "folder-exists")
        assert client.patch(url, json={"name": "papers"}).json()["name"] == "papers"
        assert [each["name"] for each in client.get("/v1/folders").json()["items"]] == ["papers"]
        assert client.delete(url).json()["status"] == "delete-pending"
        problem(client.patch(url, json={"lifetime": -1}), 400, "invalid")
        other = make(client, "papers")
        problem(client.post(f"{url}/restore"), 409, "folder-exists")
        client.patch(f"/v1/folders/{other['id']}", json={"name": "others"})
        assert client.post(f"{url}/restore").json()["status"] == "ready"


def test_lists_come_in_pages_and_filtered(gateway: VfsGateway) -> None:
    with gateway.client("pages") as client:
        made = {make(client, f"folder {number}")["id"] for number in range(5)}
        seen: list[str] = []
        after = ""
        while True:
            page = client.get("/v1/folders", params={"limit": 2, "after": after}).json()
            seen += [each["id"] for each in page["items"]]
            if page["next"] is None:
                break
            after = page["next"]
        assert seen == sorted(made)  # type: ignore[type-var]
        found = client.get("/v1/folders", params={"name": "r 3", "status": ["ready"]}).json()
        assert [each["name"] for each in found["items"]] == ["folder 3"]
        assert client.get("/v1/folders", params={"status": "error"}).json()["items"] == []


def test_only_who_shows_a_good_token_is_let_in(gateway: VfsGateway) -> None:
    with httpx.Client(base_url=gateway.url) as nobody:
        refused = nobody.get("/v1/folders")
        problem(refused, 401, "unauthorised")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        forged = {"authorization": "Bearer bgw_000000000000_" + "A" * 43}
        problem(nobody.get("/v1/folders", headers=forged), 401, "unauthorised")
        key = {"x-api-key": gateway.key("somebody")}
        assert nobody.get("/v1/folders", headers=key).status_code == 200
    with httpx.Client(base_url=gateway.manager_url) as nobody:
        problem(nobody.get("/v1/folders"), 403, "manager-only")
        wrong = {"x-backendai-storage-auth-token": "x"}
        problem(nobody.get("/v1/folders", headers=wrong), 403, "manager-only")
    with gateway.manager() as manager:
        assert manager.get("/v1/folders").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "code"),
    [
        ("GET", "/v1/nothing", None, 404, "no-such-route"),
        ("PUT", "/v1/folders", None, 405, "method"),
        ("GET", "/v1/folders/no-id", None, 400, "invalid"),
        ("GET", f"/v1/folders/{'0' * 32}", None, 404, "folder-not-found"),
        ("GET", "/v1/folders?limit=0", None, 400, "invalid"),
        ("GET", "/v1/folders?limit=2&limit=3", None, 400, "invalid"),
        ("GET", "/v1/folders?surprise=1", None, 400, "invalid"),
        *(
            ("GET", f"/v1/{path}?{name}={text}", None, 400, "invalid")
            for path, name in (("folders", "limit"), ("tasks", "limit"), ("audit", "after"))
            for text in ("1_0", "+5", "%2B5", "%205", "5%20", "05", "5.0", "%D9%A5", "")
        ),
        *(
            ("GET", f"/v1/{path}={text}", None, 400, "invalid")
            for path in ("folders?all", "audit?newest_first")
            for text in ("yes", "on", "1", "0", "True", "t", "%20true", "")
        ),
        ("POST", "/v1/folders", b'{"name": "a", "limits": {"bytes": "10"}}', 400, "invalid"),
        ("POST", "/v1/folders", b'{"name": "a", "limits": {"bytes": true}}', 400, "invalid"),
        ("POST", "/v1/folders", b'{"name": "a", "limits": {"bytes": 1.5}}', 400, "invalid"),
        ("POST", "/v1/folders", b'{"name": 5}', 400, "invalid"),
        ("GET", "/v1/folders?name=%ff", None, 400, "malformed"),
        ("GET", "/v1/folders?name=%zz", None, 400, "malformed"),
        ("POST", "/v1/folders", b"{", 400, "malformed"),
        ("POST", "/v1/folders", b"[]", 400, "invalid"),
        ("PATCH", f"/v1/folders/{'0' * 32}", b"null", 400, "invalid"),
        ("POST", "/v1/folders", b"{}", 400, "invalid"),
        ("POST", "/v1/folders", b'{"name": "a", "surprise": 1}', 400, "invalid"),
        ("POST", "/v1/folders", b'{"name": "a/b"}', 400, "invalid-name"),
        ("POST", "/v1/folders", b'{"name": ".."}', 400, "invalid-name"),
        ("POST", "/v1/folders", b'{"name": "a\\u0000"}', 400, "invalid-name"),
        ("POST", "/v1/folders", b'{"name": "a\\ud800"}', 400, "invalid"),
        ("POST", "/v1/folders", b'{"name": "a", "volume": "none"}', 404, "volume-not-found"),
        ("POST", "/v1/folders", b'{"name": "a", "group": "none"}', 404, "group-not-found"),
        ("POST", "/v1/folders", b'{"name": "a", "owner": "other"}', 403, "permission-denied"),
        ("POST", "/v1/folders", b"[" * 100_000, 400, "malformed"),
        ("POST", "/v1/folders", b" " * (2 << 20), 413, "too-large"),
    ],
)
def test_what_is_wrong_is_told_as_a_problem(
    gateway: VfsGateway, method: str, path: str, content: bytes | None, status: int, code: str
) -> None:
    with gateway.client("wrong") as client:
        json = {"content-type": "application/json"} if content is not None else {}
        answer = client.request(method, path, content=content, headers=json)
        told = problem(answer, status, code)
        assert told["status"] == status


def test_a_wrong_parameter_is_named(gateway: VfsGateway) -> None:
    with gateway.client("wrong") as client:
        answer = client.get("/v1/folders?limit=1_0&surprise=1")
        problem(answer, 400, "invalid")
        mistakes = answer.json()["data"]["mistakes"]
        assert {mistake["at"] for mistake in mistakes} == {"limit", "surprise"}
        whole = {"name": "whole", "limits": {"bytes": 5.0}}  # JSON has one kind of number
        assert client.post("/v1/folders", json=whole).json()["limits"]["bytes"] == 5


def test_a_browser_may_ask(gateway: VfsGateway) -> None:
    asks = {"origin": "https://panel.example", "access-control-request-method": "POST"}
    answer = httpx.options(f"{gateway.url}/v1/folders", headers=asks)
    assert answer.status_code == 204
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("kind", ["client-facing", "manager-facing"])
def test_an_api_tells_what_it_is_and_can(gateway: VfsGateway, kind: str) -> None:
    url = gateway.url if kind == "client-facing" else gateway.manager_url
    assert httpx.get(url).json()["type"] == kind
    document = httpx.get(f"{url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for name, schema in document["components"]["schemas"].items():
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False, name
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if "security" in operation:
                assert {"401", "403"} <= operation["responses"].keys(), (method, path)
