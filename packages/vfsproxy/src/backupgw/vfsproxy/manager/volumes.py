"""Volumes, for managers of Backend.AI."""

from __future__ import annotations

import os

from backupgw.kvstore.backends.errors import BackendError

from ..api.operation import Call, NoModel, Operation
from ..core import Core
from ..problems import Problem
from .documents import FileSystemUsage, HardwareInfo, ManagerVolume, ManagerVolumes, VolumeBody
from .references import TAG, volume_named


def manager_volume_operations(core: Core) -> list[Operation]:
    """Return Backend.AI's operations on volumes."""
    routes = _VolumeRoutes(core)
    return [
        Operation(
            "GET", "/volumes", routes.volumes, "List volumes", answer=ManagerVolumes, tag=TAG
        ),
        Operation(
            "GET",
            "/volume/hwinfo",
            routes.hardware,
            "Tell how a volume's storage is",
            body=VolumeBody,
            answer=HardwareInfo,
            problems=(404,),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/volume/performance-metric",
            routes.performance,
            "Tell how busy a volume's storage is; 501 where it does not say",
            body=VolumeBody,
            problems=(404, 501),
            tag=TAG,
        ),
        Operation(
            "GET",
            "/folder/fs-usage",
            routes.fs_usage,
            "Tell what a volume holds and can hold",
            body=VolumeBody,
            answer=FileSystemUsage,
            problems=(404,),
            tag=TAG,
        ),
    ]


class _VolumeRoutes:
    def __init__(self, core: Core) -> None:
        self._core = core

    def volumes(self, _call: Call[NoModel, NoModel]) -> ManagerVolumes:
        found = []
        for name, opened in self._core.volumes.items():
            volume = opened.volume
            path = "" if volume.local_root is None else str(volume.local_root)
            found.append(
                ManagerVolume(
                    name=name,
                    backend=volume.type,
                    path=path,
                    fsprefix=".",
                    capabilities=volume.capabilities,
                )
            )
        return ManagerVolumes(volumes=found)

    def hardware(self, call: Call[NoModel, VolumeBody]) -> HardwareInfo:
        volume = volume_named(self._core, call.body.volume).volume
        try:
            told = {} if volume.hardware is None else dict(volume.hardware())
            volume.backend.info("")
        except BackendError:
            return HardwareInfo(
                status="unavailable", status_info="the storage does not answer", metadata={}
            )
        return HardwareInfo(status="healthy", status_info=None, metadata=told)

    def performance(self, call: Call[NoModel, VolumeBody]) -> None:
        volume_named(self._core, call.body.volume)
        raise Problem(501, "unsupported", "the volume's storage does not say how busy it is")

    def fs_usage(self, call: Call[NoModel, VolumeBody]) -> FileSystemUsage:
        volume = volume_named(self._core, call.body.volume).volume
        if volume.local_root is not None:
            held = os.statvfs(volume.local_root)
            capacity = held.f_blocks * held.f_frsize
            return FileSystemUsage(
                capacity_bytes=capacity, used_bytes=capacity - held.f_bfree * held.f_frsize
            )
        quota = volume.backend.quota()
        return FileSystemUsage(
            capacity_bytes=None if quota.limit < 0 else quota.limit,
            used_bytes=None if quota.usage < 0 else quota.usage,
        )
