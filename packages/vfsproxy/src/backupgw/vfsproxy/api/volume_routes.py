"""Volumes: listed, counted, looked through for what nobody knows."""

from __future__ import annotations

from pydantic import Field

from ..core import Core
from ..tasks.scanning import submit_orphans, submit_scan
from .models import Model, VolumeName
from .operation import Call, NoModel, Operation
from .task_documents import TaskGiven


class VolumeParameters(Model):
    """Which volume."""

    volume: VolumeName


class OrphansBody(Model):
    """What is to become of orphans."""

    remove: bool = Field(False, description="remove what nobody knows, for good")


class MountWays(Model):
    """How agents can mount folders of a volume."""

    direct: bool
    nfs: bool
    fuse: bool


class VolumeDocument(Model):
    """A volume."""

    name: str
    backend: str
    capabilities: list[str]
    usual: bool = Field(description="where a folder is made when nobody says where")
    mounts: MountWays
    advisory_quota: bool = Field(description="limits are not kept for what mounts write")


class VolumeList(Model):
    """All volumes."""

    items: list[VolumeDocument]


def volume_operations(core: Core) -> list[Operation]:
    """Return the operations on volumes."""
    routes = _VolumeRoutes(core)
    return [
        Operation(
            "GET",
            "/v1/volumes",
            routes.volumes,
            "List the volumes",
            answer=VolumeList,
            tag="volumes",
        ),
        Operation(
            "POST",
            "/v1/volumes/{volume}/scan",
            routes.scan,
            "Count a volume and correct the accounts; for administrators",
            parameters=VolumeParameters,
            answer=TaskGiven,
            status=202,
            tag="volumes",
        ),
        Operation(
            "POST",
            "/v1/volumes/{volume}/orphans",
            routes.orphans,
            "Look for folders that nobody knows; for administrators",
            parameters=VolumeParameters,
            body=OrphansBody,
            answer=TaskGiven,
            status=202,
            tag="volumes",
        ),
    ]


class _VolumeRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def volumes(self, _call: Call[NoModel, NoModel]) -> VolumeList:
        items = []
        for name, opened in self._core.volumes.items():
            volume = opened.volume
            ways = {offer.method for offer in volume.mounts("")}
            items.append(
                VolumeDocument(
                    name=name,
                    backend=volume.type,
                    capabilities=volume.capabilities,
                    usual=name == self._core.vfs.usual_volume,
                    mounts=MountWays(
                        direct="direct" in ways, nfs="nfs" in ways, fuse="fuse" in ways
                    ),
                    advisory_quota=volume.advisory_quota,
                )
            )
        return VolumeList(items=items)

    def scan(self, call: Call[VolumeParameters, NoModel]) -> TaskGiven:
        return TaskGiven(task=submit_scan(self._core, call.who, call.parameters.volume).id)

    def orphans(self, call: Call[VolumeParameters, OrphansBody]) -> TaskGiven:
        job = submit_orphans(self._core, call.who, call.parameters.volume, remove=call.body.remove)
        return TaskGiven(task=job.id)
