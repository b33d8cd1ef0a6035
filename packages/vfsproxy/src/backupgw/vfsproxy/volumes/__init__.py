"""Volumes: where folders lie, and what the storage beneath does by itself."""

from .base import FolderUsage, MountOffer, NativeQuota, NativeSnapshots, Volume

__all__ = ["FolderUsage", "MountOffer", "NativeQuota", "NativeSnapshots", "Volume"]
