"""The section `[jobs]`: how many jobs run, and for how long their records are kept."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator


class JobsSettings(BaseModel):
    """Durable jobs: copies, checks and whatever else services do in the background.

    Attributes:
        running: jobs at a time, all gateways that share the database together.
        here: jobs at a time in one process.
        limits: jobs at a time by kind (a table: kind, then number); else the kind's own limit.
        lease: seconds after which the jobs of a gateway that died go on elsewhere.
        grace: seconds that running jobs have to come to the end of a step when a service stops.
        losses: how often the process of a job may die before the job is given up.
        keep: days that finished jobs are kept.
        keep_count: finished jobs that are kept at most.
        poll: seconds until another process's jobs are noticed where the database is SQLite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    running: int = Field(default=8, ge=1, le=1000)
    here: int = Field(default=4, ge=1, le=100)
    limits: dict[str, int] = {}
    lease: float = Field(default=30.0, ge=1.0, le=3600.0)
    grace: float = Field(default=20.0, ge=0.0, le=3600.0)
    losses: int = Field(default=10, ge=1, le=1000)
    keep: float = Field(default=30.0, gt=0.0, le=36_500.0)
    keep_count: int = Field(default=10_000, ge=0)
    poll: float = Field(default=1.0, ge=0.1, le=60.0)

    @field_validator("limits")
    @classmethod
    def _at_least_one(cls, limits: dict[str, int]) -> dict[str, int]:
        for kind, limit in limits.items():
            if limit < 1:
                raise ValueError(f"allows {limit} jobs of the kind {kind!r}; the least is 1")
        return limits
