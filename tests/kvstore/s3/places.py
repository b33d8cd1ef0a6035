"""Places on S3 for the tests, and what is written there."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
from tests.servers.ceph import PROGRAMS

from backupgw.kvstore import open_place
from backupgw.kvstore.backends.base import Backend

on_ceph = pytest.mark.root(*PROGRAMS)

PART = 5 << 20
VALUE = random.Random(1).randbytes(2 * PART + 12345)
DIGEST = hashlib.sha256(VALUE).hexdigest()


def made(url: str, **options: Any) -> Backend:
    place = open_place(url, **options)
    place.create()
    return place


def write(place: Backend, name: str, value: bytes = VALUE, **terms: Any) -> None:
    with place.open_writer(name, size=len(value), **terms) as writer:
        for start in range(0, len(value), 100_000):
            writer.write(value[start : start + 100_000])
