"""How long the suite is: the short form of `make test`, or the long one."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """Events and kills. The short form's numbers are one row's; `kills` of the long form are of each component."""

    long: bool
    seed: int
    events: int
    kills: int
    rounds: int  # of each of the other faults
    overload_seconds: float  # of the long form
    outage_seconds: float  # of the long form

    @classmethod
    def from_environment(cls) -> Form:
        """PIPELINE_FAULTS=long, PIPELINE_SEED; PIPELINE_FAULTS_EVENTS, _KILLS, _ROUNDS, _OVERLOAD, _OUTAGE: sizes."""
        long = os.environ.get("PIPELINE_FAULTS") == "long"
        return cls(
            long,
            int(os.environ.get("PIPELINE_SEED", "7")),
            int(os.environ.get("PIPELINE_FAULTS_EVENTS", "1000000" if long else "100000")),
            int(os.environ.get("PIPELINE_FAULTS_KILLS", "200" if long else "30")),
            int(os.environ.get("PIPELINE_FAULTS_ROUNDS", "20" if long else "1")),
            float(os.environ.get("PIPELINE_FAULTS_OVERLOAD", "600")),
            float(os.environ.get("PIPELINE_FAULTS_OUTAGE", "3600")),
        )


FORM = Form.from_environment()
