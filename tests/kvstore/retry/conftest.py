"""A clock that only sleeping moves."""

from __future__ import annotations

import pytest
from tests.kvstore.retry.naps import Time


@pytest.fixture
def time() -> Time:
    return Time()
