"""What a campaign is told."""

import os
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """`rounds`: how many faults, where a campaign counts them. The URLs: real servers in place of our own."""

    rounds: int
    seed: int = 0
    database_url: str | None = None
    broker_url: str | None = None
    is_quiet: bool = False
    started: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """Progress, for whoever waits."""
        if not self.is_quiet:
            print(f"{time.monotonic() - self.started:7.1f} s  {line}", flush=True)


def from_environment(rounds: int, seed: int, database: str | None, broker: str | None) -> Options:
    """DATABASE_URL and BROKER_URL count where nothing else is said."""
    return Options(
        rounds,
        seed,
        database or os.environ.get("DATABASE_URL") or None,
        broker or os.environ.get("BROKER_URL") or None,
    )
