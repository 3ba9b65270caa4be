"""A board and a lamp of a real gateway process: by local rule with the link down, and by order of the centre."""

import asyncio
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.integration.test_gateway_process import ended, start
from tests.modbus_server import Asked, bus, echo, exception, reply
from tests.servers import Server, mosquitto

GATEWAY = "gw-1"
LEVEL, BOARD, BEACON, LAMP = 1, 2, 3, 4
DISTRICT = """
id = "small"
name = { zh = "小区", en = "Small" }
[[unit]]
id = "drainage"
name = { zh = "排水", en = "Drainage" }
functions = ["drainage", "lighting", "sensing"]
[[site]]
id = "underpass"
name = { zh = "下立交", en = "Underpass" }
kind = "underpass"
territory = "all"
outline = [[121.38, 31.24], [121.41, 31.24], [121.41, 31.26], [121.38, 31.24]]
[[gateway]]
id = "gw-1"
name = { zh = "网关", en = "Gateway" }
[[bus]]
id = "bus-1"
gateway = "gw-1"
"""
DEVICES = (
    ("level", "level_sensor", "dfrobot_sen0492", LEVEL, 0, "mounting_height_m = 3.5"),
    ("board", "warning_board", "reference_warning_board", BOARD, 0, ""),
    ("beacon", "beacon", "reference_beacon", BEACON, 0, ""),
    ("lamp", "lamp_controller", "intesis_dali", LAMP, 7100, "nominal_power_w = 150.0"),
)


class Street:
    """What stands on the bus: water under a gauge, and what was written to the rest."""

    def __init__(self) -> None:
        self.water_mm = 0
        self.board, self.beacon, self.lamp = 3, 1, 100
        self.changed = asyncio.Event()

    async def behave(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.function in (5, 6):
            match asked.unit, asked.start:
                case 2, 0:
                    self.board = asked.count
                case 3, 0:
                    self.beacon = asked.count >> 15
                case 4, 7115:
                    self.lamp = asked.count
                case _:
                    writer.write(exception(asked, 2))
                    return
            self.changed.set()
            writer.write(echo(asked))
        elif asked.function in (1, 2):
            writer.write(reply(asked, bytes([self.beacon if asked.function == 1 else 0])))
        else:
            held = {(LEVEL, 0x34): 3500 - self.water_mm, (BOARD, 0): self.board, (LAMP, 7106): self.lamp}
            words = [held.get((asked.unit, asked.start + n), 0) for n in range(asked.count)]
            writer.write(reply(asked, struct.pack(f">{asked.count}H", *words)))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


def configured(folder: Path, broker: int, bus_port: int) -> tuple[Path, Path]:
    devices = "".join(
        f"""
[[device]]
id = "{name}"
kind = "{kind}"
profile = "{profile}"
gateway = "{GATEWAY}"
site = "underpass"
asset = "{name}"
component = "0120"
lon = 121.4
lat = 31.25
wire = {{ by = "modbus", bus = "bus-1", unit = {unit}, base = {base} }}
install = {{ {install} }}
"""
        for name, kind, profile, unit, base, install in DEVICES
    )
    clock = f"[clock]\nwall = {time.time_ns()}\ncity = 1781782200000000000\nspeed = 60.0\n"
    (folder / "district.toml").write_text(DISTRICT + devices)
    gateway, cloud = folder / "gateway.toml", folder / "cloud.toml"
    gateway.write_text(f"""\
gateway = "{GATEWAY}"
district = "district.toml"
data = "data"
broker = {{ host = "127.0.0.1", port = {broker} }}
buses.bus-1 = {{ host = "127.0.0.1", port = {bus_port} }}
[allow]
board = ["show"]
beacon = ["on", "off"]
lamp = ["on", "off", "dim"]
[[act]]
device = "board"
rule = "flood.depth"
levels = {{ slow = "show 1", close = "show 2", severe = "show 3", impassable = "show 3" }}
otherwise = "show 0"
[[act]]
device = "beacon"
rule = "flood.depth"
levels = {{ severe = "on", impassable = "on" }}
otherwise = "off"
{clock}""")
    cloud.write_text(f"""\
district = "district.toml"
data = "cloud"
broker = {{ host = "127.0.0.1", port = {broker} }}
http = {{ host = "127.0.0.1", port = 8080 }}
{clock}""")
    return gateway, cloud


def order(cloud: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "streetwarden", "order", str(cloud), GATEWAY, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_board_warns_with_the_link_down_and_a_lamp_obeys_the_centre(tmp_path: Path) -> None:
    async def scenario(broker: Server) -> None:
        street = Street()
        async with bus(street.behave) as line:
            gateway, cloud = configured(tmp_path, broker.port, line.port)
            running = await asyncio.to_thread(start, gateway)
            try:
                await street.until(lambda: (street.board, street.beacon) == (0, 0))
                done = await asyncio.to_thread(order, cloud, "lamp", "dim", "40")
                assert (done.returncode, street.lamp) == (0, 40), done.stderr
                assert "done, it shows 40" in done.stderr
                for words, why in ((("lamp", "explode"), "not in this gateway's"), (("lamp", "dim"), "takes a value")):
                    refused = await asyncio.to_thread(order, cloud, *words)
                    assert refused.returncode == 1
                    assert why in " ".join(refused.stderr.split())

                await asyncio.to_thread(broker.kill)  # nobody but the gateway knows of the water now
                street.water_mm = 300
                await street.until(lambda: (street.board, street.beacon) == (2, 0))
                street.water_mm = 450
                await street.until(lambda: (street.board, street.beacon) == (3, 1))
                street.board = 0  # its power failed; the gateway sees to it within half a minute of the wall at most
                running.kill()
                await asyncio.to_thread(ended, running)
                running = await asyncio.to_thread(start, gateway)  # and knows after a kill what stood before it
                await street.until(lambda: (street.board, street.beacon) == (3, 1))
                street.water_mm = 0
                await street.until(lambda: (street.board, street.beacon) == (0, 0))
            finally:
                running.terminate()
                text = await asyncio.to_thread(ended, running)
            assert running.returncode == 0, text

    with mosquitto(tmp_path) as server:
        asyncio.run(scenario(server))
