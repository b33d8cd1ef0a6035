"""The token of a checkpoint that lies in a file beside its item."""

from __future__ import annotations

import json
import re

from ..names import InvalidName, check_path
from .plan import Plan
from .posixfs_leftovers import PART


def write_token(plan: Plan, part: str) -> str:
    """Return a checkpoint's token; `part` is the name of its file in the item's folder."""
    return json.dumps([1, plan.name, plan.size, plan.if_absent, plan.expected_hash, part])


def read_token(token: str) -> tuple[Plan, str]:
    """Return what a token stands for: the plan and the part's name in its folder.

    Raises:
        ValueError: it is not one that a checkpoint returned.
    """
    try:
        version, name, size, if_absent, expected_hash, part = json.loads(token)
        if version != 1 or not re.fullmatch(rf"{re.escape(PART)}[0-9a-f]{{32}}", part):
            raise ValueError(part)
        return Plan(check_path(name), size, bool(if_absent), expected_hash), part
    except (ValueError, TypeError, InvalidName) as error:
        raise ValueError("not a token of a checkpoint") from error
