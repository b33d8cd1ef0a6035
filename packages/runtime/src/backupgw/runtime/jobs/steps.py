"""What a job has done already: steps, each with its value, that later attempts do not repeat."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ..database.tables.jobs import job_steps
from .claims import Claim


@dataclass(frozen=True, slots=True)
class Step:
    """A step that an attempt has begun.

    Attributes:
        done: whether it is known to have had its effect.
        epoch: whose it is.
    """

    done: bool
    value: Any
    epoch: int


def find(connection: sa.Connection, claim: Claim, name: str) -> Step | None:
    """Return what is known of a step; None: it was never begun, or without saying so."""
    row = connection.execute(
        sa.select(job_steps).where(job_steps.c.job == claim.job.number, job_steps.c.name == name)
    ).one_or_none()
    if row is None:
        return None
    return Step(row.done, None if row.value is None else json.loads(row.value), row.epoch)


def put(connection: sa.Connection, claim: Claim, name: str, *, value: str | None) -> None:
    """Note a step as done with a value in JSON, or as begun (None).

    In a transaction in which `holding.confirm` has said that the job is the runner's.
    """
    values = {"done": value is not None, "value": value, "epoch": claim.epoch}
    where = sa.and_(job_steps.c.job == claim.job.number, job_steps.c.name == name)
    if connection.execute(sa.update(job_steps).where(where).values(values)).rowcount == 0:
        connection.execute(sa.insert(job_steps).values(job=claim.job.number, name=name, **values))
