"""How folders are mounted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..core import Core
from ..folders.mounts import Mount, mount_of
from .models import FolderParameters, Model
from .operation import Call, NoModel, Operation


class MountParameters(FolderParameters):
    """What is to be mounted, and what for."""

    mode: Literal["ro", "rw"] = "ro"
    subpath: str = Field("", max_length=4000, description="a folder in it")


class MountOfferDocument(Model):
    """A way to mount a folder."""

    method: str = Field(description="direct, nfs or fuse")
    source: str = Field(description="a path, SERVER:/EXPORT/path, or a command")


class MountDocument(Model):
    """How an agent mounts a folder."""

    folder: str
    target: str = Field(description="where it belongs in a container")
    read_only: bool = Field(description="it must be mounted so")
    quota: Literal["native", "advisory", "none"] = Field(
        description="who keeps the limits for what is written through the mount"
    )
    offers: list[MountOfferDocument]


def mount_operations(core: Core) -> list[Operation]:
    """Return the operation that tells how a folder is mounted."""

    def mount(call: Call[MountParameters, NoModel]) -> MountDocument:
        wanted = call.parameters
        return mount_document(mount_of(core, call.who, wanted.folder, wanted.mode, wanted.subpath))

    return [
        Operation(
            "GET",
            "/v1/folders/{folder}/mount",
            mount,
            "Tell how a folder is mounted; read-only unless its permission and limits allow more",
            parameters=MountParameters,
            answer=MountDocument,
            problems=(409,),
            tag="mounts",
        )
    ]


def mount_document(mount: Mount) -> MountDocument:
    """Return what an agent is told."""
    return MountDocument(
        folder=mount.folder.id,
        target=mount.target,
        read_only=mount.read_only,
        quota=mount.quota,
        offers=[
            MountOfferDocument(method=offer.method, source=offer.source) for offer in mount.offers
        ],
    )
