"""The demo's own MQTT 5 broker as a process: ``python -m streetwarden.broker --port 1884``.

rumqttd (inside iotcore) keeps everything in memory and forgets it when it ends; the end-to-end receipts carry our
guarantee, not the broker. It keeps a session only for a client that asked for no clean start at its first connection
already. Production and ``compose.yaml`` use Mosquitto.
"""

import argparse
import logging
import os
import select
import signal
import sys
import tempfile
import threading
from pathlib import Path

from iotcore.iotcore import IotCoreBroker

# An MQTT 5 listener has a table of its own in rumqttd, which by default closes the socket on a payload above 20 KiB.
# The log behind each subscription lives in memory: 4 segments of 8 MiB bound it, and the oldest messages go first.
_CONFIGURATION = """\
id = 0

[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 8388608
max_segment_count = 4

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = 16777216
max_inflight_count = 100
"""


def run(port: int) -> None:
    """Serve MQTT 5 on 127.0.0.1 until SIGTERM, SIGINT or the parent's end; ``OSError`` if the port is taken."""
    # The broker blocks in native code, where Python's handlers never run: the system's own end a process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # rumqttd wraps its routing in error spans: every packet would be reported as an error.
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="streetwarden-broker-") as folder:
        path = Path(folder) / "rumqttd.toml"
        path.write_text(_CONFIGURATION.format(port=port))
        broker = IotCoreBroker(config_path=str(path))  # reads the file now, so nothing is left behind by a kill
    broker.check_ports()
    broker.run_forever()


def _end_with(parent: int) -> None:
    """Leave when the parent does, however it ends. Only Linux can say so without asking again and again."""
    if not hasattr(os, "pidfd_open"):
        return
    try:
        watch = os.pidfd_open(parent)
    except ProcessLookupError:
        os._exit(0)
    select.select([watch], [], [])
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m streetwarden.broker", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="loopback port for MQTT 5")
    run(parser.parse_args().port)


if __name__ == "__main__":
    main()
