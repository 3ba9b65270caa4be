"""A whole city of separate processes for a test: real Modbus TCP, a real Mosquitto, real stores, a real clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware_sim.swarm import district_text, scenario_text, swarm
from streetwarden.assembly import Assembly, City, assemble, evening
from streetwarden.centre import Centre
from streetwarden.demo import start
from streetwarden.supervisor import Supervisor

SPEED = 10.0  # a reading every 10 s of city time is one a second on the wall


@dataclass(frozen=True, slots=True)
class Running:
    """A city that is up."""

    city: City
    assembly: Assembly
    supervisor: Supervisor
    centre: Centre


@asynccontextmanager
async def running(city: City) -> AsyncIterator[Running]:
    """Start every process and end every one of them, whatever happens."""
    async with Supervisor() as supervisor:
        assembly = assemble(city)
        async for _ in start(supervisor, assembly):
            pass
        async with Centre(assembly.url) as centre:
            yield Running(city, assembly, supervisor, centre)


def swarm_city(
    folder: Path,
    seed: int,
    *,
    per_minute: float,
    length_s: float,
    lasts_s: float,
    broker_port: int,
    rules: Path | None = None,
    cloud_module: str = "streetwarden.centre_process",
) -> City:
    """Make 100 manhole monitors behind two gateways, six points or more each, read once a wall second: 600 samples/s.

    Times are city seconds, ``SPEED`` of them in a wall second.
    """
    folder.mkdir(parents=True, exist_ok=True)
    district, scenario = folder / "swarm.toml", folder / "lids.toml"
    district.write_text(district_text(swarm(100, buses=4, gateways=2, interval_s=SPEED)), encoding="utf-8")
    scenario.write_text(scenario_text(per_minute, length_s, lasts_s, after_s=30.0), encoding="utf-8")
    return City(
        folder / "city",
        district,
        evening(SPEED),
        seed=seed,
        scenario=str(scenario),
        rules=rules,
        broker_port=broker_port,
        cloud_module=cloud_module,
    )
