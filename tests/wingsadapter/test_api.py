"""What the node answers: who may ask, what is refused and how, and the stream of events."""

from __future__ import annotations

import os
import uuid

import httpx
import pytest
from tests.servers import peers
from tests.servers.panel import TOKEN, TOKEN_ID, Panel

from .node_site import NodeSite

pytestmark = [pytest.mark.peers(peers.RESTIC_NEW)]

SOME = "a09316f2-c1df-44b9-8244-6c6789eb75a1"


def refused(answer: httpx.Response, status: int) -> str:
    """Check an answer that is an error, as the Panel looks at it; return its text."""
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert set(document) == {"error", "request_id"}
    assert document["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["user-agent"] == f"Pelican Wings/v1.0.0 (id:{TOKEN_ID})"
    return str(document["error"])


class TestWhoMayAsk:
    @pytest.mark.parametrize(
        ("given", "status"),
        [
            (None, 401), ("", 401), ("Bearer", 401), (f"bearer {TOKEN}", 401),
            (f"Basic {TOKEN}", 401), (f"Bearer {TOKEN}x", 403), (f"Bearer {TOKEN[:-1]}", 403),
            (f"Bearer {TOKEN_ID}.{TOKEN}", 403), ("Bearer ü", 403), (f"Bearer  {TOKEN}", 403),
        ],
    )  # fmt: skip
    def test_the_token_is_needed(self, node: NodeSite, given: str | None, status: int) -> None:
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        for method, path in (
            ("GET", f"/api/servers/{SOME}/backup/snapshots"),
            ("POST", f"/api/servers/{SOME}/backup"),
            ("DELETE", f"/api/servers/{SOME}/deleteAllBackups"),
            ("GET", f"/api/events?servers={SOME}"),
            ("GET", "/api/system"),
        ):
            answer = node.request(method, path, token=None, headers=headers)
            refused(answer, status)
            assert answer.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)

    def test_two_tokens_are_none(self, node: NodeSite) -> None:
        with httpx.Client(trust_env=False) as client:
            answer = client.get(
                f"{node.url}/api/servers/{SOME}/backup/snapshots",
                headers=[("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")],
            )
        refused(answer, 401)

    def test_browsers_may_ask_first(self, node: NodeSite, panel: Panel) -> None:
        answer = node.request("OPTIONS", f"/api/servers/{SOME}/backup", token=None)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == panel.url
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["x-request-id"]

    def test_metrics_are_for_who_has_the_token(self, node: NodeSite) -> None:
        assert node.request("GET", "/metrics", token=None).status_code == 401
        assert node.request("GET", "/metrics").status_code == 200


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "server",
        [
            SOME, SOME.upper(), "x", "..", "%2e%2e", f"{SOME},server_uuid:x", "--help",
            "a09316f2c1df44b982446c6789eb75a1", f"{SOME}%0a", "%00", "latest",
        ],
    )  # fmt: skip
    def test_a_server_that_is_not_here(self, node: NodeSite, server: str) -> None:
        for method, path in (
            ("POST", "backup"),
            ("GET", "backup/snapshots"),
            ("GET", f"backup/{SOME}/status"),
            ("DELETE", f"backup/{SOME}"),
            ("DELETE", "deleteAllBackups"),
        ):
            refused(node.request(method, f"/api/servers/{server}/{path}", json={}), 404)

    def test_a_folder_that_the_panel_does_not_list_is_no_server(self, node: NodeSite) -> None:
        stranger = str(uuid.uuid4())
        (node.data / stranger).mkdir()
        refused(node.request("GET", f"/api/servers/{stranger}/backup/snapshots"), 404)

    def test_a_server_that_was_installed_just_now_is_known(
        self, node: NodeSite, panel: Panel
    ) -> None:
        server = node.add_server()
        panel.calls.clear()
        assert node.snapshots(server) == []
        assert node.snapshots(server) == []
        asked = panel.calls.count(lambda call: call.path.endswith(server))
        assert asked == 1

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"[]", b'"x"', b"\xff", b"{}", b"null", b'{"uuid": 5, "adapter": "restic"}',
            b'{"uuid": "x", "adapter": "restic"}',
            f'{{"uuid": "{SOME},server_uuid:x", "adapter": "restic"}}'.encode(),
            f'{{"uuid": "{SOME}\\n", "adapter": "restic"}}'.encode(),
            f'{{"uuid": "{SOME}"}}'.encode(),
            f'{{"uuid": "{SOME}", "adapter": "borg"}}'.encode(),
            f'{{"uuid": "{SOME}", "adapter": "restic", "ignore": ["x"]}}'.encode(),
            f'{{"uuid": "{SOME}", "adapter": "restic", "ignore": "a\\u0000b"}}'.encode(),
            f'{{"uuid": "{SOME}", "adapter": "restic", "ignore": "\\ud800"}}'.encode(),
            b"[" * 50_000,
        ],
    )  # fmt: skip
    def test_a_body_that_is_not_understood(self, node: NodeSite, body: bytes) -> None:
        server = node.add_server()
        refused(node.request("POST", f"/api/servers/{server}/backup", content=body), 400)
        assert node.snapshots(server) == []

    def test_a_body_that_is_too_large(self, node: NodeSite) -> None:
        server = node.add_server()
        content = b'{"ignore": "' + b"x" * (2 << 20) + b'"}'
        refused(node.request("POST", f"/api/servers/{server}/backup", content=content), 413)

    @pytest.mark.parametrize(
        "more",
        [
            {"adapter": None}, {"adapter": "borg"}, {"truncate_directory": "yes"},
            {"paths": "x"}, {"paths": ["../x"]}, {"paths": ["a/../../x"]}, {"paths": [""]},
            {"paths": ["/"]}, {"paths": [5]}, {"paths": ["a\nb"]}, {"paths": ["x"] * 1001},
            {"download_url": 5},
        ],
    )  # fmt: skip
    def test_a_restore_that_is_not_understood(
        self, node: NodeSite, more: dict[str, object]
    ) -> None:
        server = node.add_server()
        body = {"adapter": "restic", **more}
        refused(
            node.request("POST", f"/api/servers/{server}/backup/{SOME}/restore", json=body), 400
        )

    @pytest.mark.parametrize(
        "backup", ["x", "latest", SOME.upper(), f"{SOME},x", "--help", "%2e%2e", "snapshots"]
    )
    def test_a_backup_without_a_name_of_a_backup(self, node: NodeSite, backup: str) -> None:
        server = node.add_server()
        refused(node.request("DELETE", f"/api/servers/{server}/backup/{backup}"), 400)
        refused(node.request("GET", f"/api/servers/{server}/backup/{backup}/status"), 400)

    def test_a_backup_of_another_server_is_none(self, node: NodeSite, panel: Panel) -> None:
        mine, theirs = node.add_server(), node.add_server()
        row = panel.create_backup(theirs)
        assert panel.wait_for_backup(row)
        status = node.request("GET", f"/api/servers/{mine}/backup/{row.uuid}/status").json()
        assert status == {"exists": False, "snapshot": None}
        assert node.request("DELETE", f"/api/servers/{mine}/backup/{row.uuid}").status_code == 204
        assert len(node.snapshots(theirs)) == 1

    def test_the_same_backup_twice(self, node: NodeSite, panel: Panel) -> None:
        server = node.add_server()
        row = panel.create_backup(server)
        body = {"adapter": "restic", "uuid": row.uuid}
        path = f"/api/servers/{server}/backup"
        refused(node.request("POST", path, json=body), 409)
        assert panel.wait_for_backup(row)
        refused(node.request("POST", path, json=body), 409)
        assert len(row.reports) == 1

    def test_what_is_nowhere(self, node: NodeSite) -> None:
        for path in ("/", "/api", "/api/system", f"/api/servers/{SOME}/files"):
            refused(node.request("GET", path), 404)


class TestBodies:
    def test_keys_in_any_case_and_unknown_ones(self, node: NodeSite, panel: Panel) -> None:
        server = node.add_server()
        content = f'{{"UUID": "{uuid.uuid4()}", "Adapter": "restic", "more": [1], "ignore": null}}'
        answer = node.request(
            "POST",
            f"/api/servers/{server}/backup",
            content=content,
            headers={"Content-Type": "text/plain"},
        )
        assert answer.status_code == 202

    def test_a_delete_with_and_without_a_body(self, node: NodeSite) -> None:
        server = node.add_server()
        path = f"/api/servers/{server}/backup/{SOME}"
        for content in (b"", b"null", b"{}", b'{"adapter": "restic"}'):
            assert node.request("DELETE", path, content=content).status_code == 204
        refused(node.request("DELETE", path, content=b"{"), 400)
        refused(node.request("DELETE", path, content=b'{"adapter": "borg"}'), 400)


class TestEvents:
    def test_servers_are_needed_and_known(self, node: NodeSite) -> None:
        known = node.add_server()
        refused(node.request("GET", "/api/events"), 400)
        refused(node.request("GET", "/api/events?servers="), 400)
        refused(node.request("GET", "/api/events?servers=%20,%20"), 400)
        refused(node.request("GET", f"/api/events?servers={known},{SOME}"), 404)
        refused(node.request("GET", f"/api/events?servers={known},x"), 404)

    def test_the_stream(self, node: NodeSite, panel: Panel) -> None:
        server, other = node.add_server(), node.add_server()
        with node.listening(server) as listener:
            assert listener.headers is not None
            assert listener.headers["content-type"] == "text/event-stream"
            assert listener.headers["cache-control"] == "no-cache"
            assert listener.headers["x-accel-buffering"] == "no"
            assert listener.headers["user-agent"].startswith("Pelican Wings/")
            listener.wait_for_comment(": keepalive")
            unheard = panel.create_backup(other)
            assert panel.wait_for_backup(unheard)
            row = panel.create_backup(server)
            listener.wait_for("backup completed")
            assert {data["server_id"] for _, data in listener.events} == {server}
            assert panel.wait_for_backup(row)

    def test_what_was_missed_is_told_again(self, node: NodeSite, panel: Panel) -> None:
        server = node.add_server()
        with node.listening(server) as listener:
            first = panel.create_backup(server)
            listener.wait_for("backup completed")
            last = next(number for number in listener.ids if number)
        rows = [panel.create_backup(server) for _ in range(2)]
        assert all(panel.wait_for_backup(row) for row in rows)
        with node.listening(server, **{"Last-Event-ID": last}) as listener:
            told = listener.wait_for("backup completed", 2)
        assert [each["backup_uuid"] for each in told] == [row.uuid for row in rows]
        assert first.uuid not in str(told)
        with node.listening(server, **{"Last-Event-ID": "nonsense"}) as listener:
            listener.wait_for_comment(": keepalive")
            assert listener.events == []

    def test_progress_is_told(self, node: NodeSite, panel: Panel) -> None:
        server = node.add_server(files=24, size=4 << 20)
        with node.listening(server) as listener:
            row = panel.create_backup(server)
            listener.wait_for("backup completed")
            progress = [data for name, data in listener.events if name == "backup progress"]
        assert panel.wait_for_backup(row)
        assert progress
        for data in progress:
            assert data["backup_uuid"] == row.uuid
            assert data["percent"] is None or 0 <= data["percent"] <= 100
            assert data["bytes"] >= 0
        # They do not push out what is worth being told again.
        assert all(
            not number
            for number, (name, _) in zip(listener.ids, listener.events, strict=True)
            if name == "backup progress"
        )


def test_what_goes_wrong_is_reported(node: NodeSite, panel: Panel) -> None:
    server = node.add_server()
    with node.listening(server) as listener:
        missing = panel.create_backup(server)
        assert panel.wait_for_backup(missing)
        node_files = node.tree(server)
        row = panel.create_backup(server)
        assert panel.wait_for_backup(row)
        panel.delete_backup(row)
        panel.backups[row.uuid] = row
        panel.restore_backup(row, truncate=True)
        assert not panel.wait_for_restore(row)
        listener.wait_for("backup restore completed")
    assert node.tree(server) == node_files
    os.rename(node.root(server), node.root(server).with_name("away"))
    answer = node.request(
        "POST", f"/api/servers/{server}/backup", json={"adapter": "restic", "uuid": SOME}
    )
    refused(answer, 409)
