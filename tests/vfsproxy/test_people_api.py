"""Users, groups, shares, quotas, tasks and the audit log over HTTP."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.servers.vfs_gateway import VfsGateway

from .test_folders_api import make, problem


def follow(client: httpx.Client, task: str) -> list[dict[str, object]]:
    """Return what the stream of a task tells, until it ends."""
    told = []
    with client.stream("GET", f"/v1/tasks/{task}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
    return told


def test_a_folder_is_shared_and_left(gateway: VfsGateway) -> None:
    with gateway.client("sharer") as owner, gateway.client("guest") as guest:
        folder = make(owner, "shared")
        url = f"/v1/folders/{folder['id']}"
        problem(guest.get(url), 404, "folder-not-found")
        share = f"{url}/shares/user/guest"
        answer = owner.put(share, json={"permission": "rw"})
        assert answer.json()["permission"] == "rw"
        assert guest.get(url).json()["permission"] == "rw"
        assert [each["id"] for each in guest.get("/v1/folders").json()["items"]] == [folder["id"]]
        problem(guest.put(share, json={"permission": "rwd"}), 403, "permission-denied")
        problem(guest.delete(url), 403, "permission-denied")
        problem(owner.put(share, json={"permission": "owner"}), 400, "invalid")
        problem(owner.put(f"{url}/shares/user/sharer", json={"permission": "ro"}), 409, "owner")
        assert guest.post(f"{url}/leave").status_code == 204
        problem(guest.get(url), 404, "folder-not-found")
        problem(owner.delete(share), 404, "share-not-found")
        actions = [
            entry["action"]
            for entry in owner.get(f"/v1/audit?folder={folder['id']}").json()["items"]
        ]
        assert actions == ["folder.create", "folder.share", "folder.leave"]


def test_groups_have_folders_members_and_limits(gateway: VfsGateway) -> None:
    with gateway.manager() as manager, gateway.client("lead") as lead:
        assert manager.put("/v1/groups/crew").status_code == 201
        assert manager.put("/v1/groups/crew").status_code == 200
        problem(lead.get("/v1/groups/crew"), 404, "group-not-found")
        manager.put("/v1/groups/crew/members/lead", json={"admin": True})
        assert lead.put("/v1/groups/crew/members/hand", json={}).json()["members"] == {
            "hand": False,
            "lead": True,
        }
        quota = manager.put("/v1/quotas/group/crew", json={"bytes": 5000}).json()
        assert (quota["limit_bytes"], quota["own"]) == (5000, True)
        problem(lead.put("/v1/quotas/group/crew", json={}), 403, "permission-denied")
        folder = make(lead, "common", group="crew", group_permission="ro")
        assert folder["type"] == "group"
        with gateway.client("hand") as hand:
            assert hand.get(f"/v1/folders/{folder['id']}").json()["permission"] == "ro"
            assert hand.get("/v1/quotas/group/crew").json()["limit_bytes"] == 5000
            problem(hand.delete("/v1/groups/crew/members/lead"), 403, "permission-denied")
            assert hand.delete("/v1/groups/crew/members/hand").status_code == 204
            problem(hand.get(f"/v1/folders/{folder['id']}"), 404, "folder-not-found")
        problem(manager.delete("/v1/groups/crew"), 409, "has-folders")
        assert manager.delete("/v1/quotas/group/crew").json()["own"] is False


def test_users_can_be_made_administrators_and_shut_out(gateway: VfsGateway) -> None:
    with gateway.manager() as manager, gateway.client("boss") as boss:
        problem(boss.get("/v1/users"), 403, "permission-denied")
        manager.put("/v1/users/boss", json={"admin": True})
        assert "boss" in [each["name"] for each in boss.get("/v1/users").json()["items"]]
        assert boss.get("/v1/folders", params={"all": True}).status_code == 200
        manager.put("/v1/users/boss", json={"disabled": True})
        problem(boss.get("/v1/folders"), 403, "user-disabled")
        assert manager.delete("/v1/users/boss").status_code == 204
        assert boss.get("/v1/folders").json()["items"] == []


def test_a_task_is_followed_to_its_end(gateway: VfsGateway) -> None:
    with gateway.client("tasker") as client, gateway.client("other") as other:
        folder = make(client, "to go")
        url = f"/v1/folders/{folder['id']}"
        client.delete(url)
        answer = client.post(f"{url}/purge")
        assert answer.status_code == 202
        task = answer.json()["task"]
        problem(other.get(f"/v1/tasks/{task}"), 404, "task-not-found")
        problem(other.get(f"/v1/tasks/{task}/events"), 404, "task-not-found")
        told = follow(client, task)
        assert told[-1]["state"] == "succeeded"
        assert told[-1]["result"] == {"files": 0}
        problem(client.get(url), 404, "folder-not-found")


@pytest.mark.parametrize("api", ["client", "manager"])
def test_volumes_are_told(gateway: VfsGateway, api: str) -> None:
    with gateway.client("looker") if api == "client" else gateway.manager() as client:
        found = client.get("/v1/volumes").json()["items"]
        assert [each["name"] for each in found] == ["main"]
        assert found[0]["mounts"] == {"direct": True, "nfs": False, "fuse": False}
