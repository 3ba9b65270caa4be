"""Real servers for tests, on loopback and in a folder of the test's own.

``with mosquitto(tmp_path) as broker: …`` starts one and always ends it. ``kill()`` is a ``kill -9``, ``restart()``
starts it again on the same port and folder. They block: inside an event loop, ``await asyncio.to_thread(broker.kill)``.
What a server prints stands in ``<name>.log`` in the folder and is shown when the test fails.
"""

import http.client
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_LIMIT_S = 20.0
STOP_LIMIT_S = 5.0
_LOOPBACK = "127.0.0.1"


class Missing(RuntimeError):  # noqa: N818 - named by what the person should mend
    """A server program is not on this machine; the text is the command that installs it."""


class Server:
    """One server process: its port, its folder, its log, and the means to hurt it."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, folder: Path, ready: Callable[[int], bool] | None = None
    ) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._command = tuple(command)
        self._ready = ready or accepts

    @property
    def url(self) -> str:
        """Where an HTTP client finds the server."""
        return f"http://{_LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start the process and wait until it serves; ``RuntimeError`` with its output when it does not."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until = time.monotonic() + START_LIMIT_S
        while not self._ready(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"{self.name} did not start on port {self.port}:\n{self.output()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a power cut would do it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def restart(self) -> None:
        """Start again on the same port and folder, after ending what still runs."""
        self.stop()
        self.start()

    def output(self) -> str:
        """The end of what the server printed, at most 4 KiB."""
        return self.log.read_bytes()[-4096:].decode(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        sys.stdout.write(f"--- {self.name} on port {self.port} ---\n{self.output()}\n")  # pytest shows it on failure


def mosquitto(
    folder: Path, port: int | None = None, *, persistent: bool = False, users: Mapping[str, str] | None = None
) -> Server:
    """Mosquitto with an unbounded queue; open to all unless ``users`` (name to password) are given.

    ``persistent`` saves sessions and messages after every change, so that they outlive a kill.
    """
    program, port = _program("mosquitto"), port or free_port()
    lines = [
        f"listener {port} {_LOOPBACK}",
        "set_tcp_nodelay true",  # without it windowed QoS 1 is up to 50 times slower
        "max_queued_messages 0",
        "max_inflight_messages 100",
        f"allow_anonymous {str(not users).lower()}",
        f"persistence {str(persistent).lower()}",
        *([f"persistence_location {folder}/", "autosave_on_changes true", "autosave_interval 1"] if persistent else []),
        *(["user root"] if os.geteuid() == 0 else []),  # else it would become a user who may not read the folder
        "log_type error",
        "log_type warning",
    ]
    if users:
        passwords = folder / "passwords"
        passwords.write_text("".join(f"{name}:{password}\n" for name, password in users.items()))
        passwords.chmod(0o600)
        subprocess.run([_program("mosquitto_passwd", "mosquitto"), "-U", passwords], check=True)
        lines.append(f"password_file {passwords}")
    configuration = folder / "mosquitto.conf"
    configuration.write_text("\n".join([*lines, ""]))
    return Server("mosquitto", [program, "-c", str(configuration)], port, folder)


def influx(folder: Path, port: int | None = None) -> Server:
    """Debian's InfluxDB 1.6 (``/write``, InfluxQL, no ``/api/v2``); ``.url`` is where it serves."""
    program, port = _program("influxd", "influxdb"), port or free_port()
    configuration = folder / "influxdb.conf"
    configuration.write_text(f"""\
reporting-disabled = true
bind-address = "{_LOOPBACK}:{free_port()}"  # the backup service: without this line two servers fight over 8088

[meta]
dir = "{folder}/meta"

[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false

[monitor]
store-enabled = false

[http]
bind-address = "{_LOOPBACK}:{port}"
log-enabled = false

[logging]
level = "warn"
suppress-logo = true
""")
    return Server("influxd", [program, "-config", str(configuration)], port, folder, _pings)


def iotcore_broker(folder: Path, port: int | None = None) -> Server:
    """The demo's embedded broker (MQTT 5 only; it remembers nothing over a restart)."""
    port = port or free_port()
    # Run from the work tree: the server's folder is not a place to import from.
    here = Path(__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(here)!r}); from streetwarden.broker import run; run({port})"
    return Server("iotcore", [sys.executable, "-c", code], port, folder)


def free_port() -> int:
    """A loopback port nobody listens on, below those that clients are handed: none takes it while a server is down."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_LOOPBACK, port))
            except OSError:
                continue
        return port


def _program(name: str, package: str | None = None) -> str:
    # Debian keeps servers in /usr/sbin, which is not on everybody's path.
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if path is None:
        raise Missing(f"{name} is not installed; run: sudo apt-get install --no-install-recommends {package or name}")
    return path


def accepts(port: int) -> bool:
    """Whether something takes connections on a loopback port."""
    try:
        socket.create_connection((_LOOPBACK, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _pings(port: int) -> bool:
    connection = http.client.HTTPConnection(_LOOPBACK, port, timeout=1.0)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == http.HTTPStatus.NO_CONTENT
    except OSError:
        return False
    finally:
        connection.close()
