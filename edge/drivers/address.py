"""Where a bus is, and how it is spoken to."""

from typing import Literal

import msgspec

BAUDS = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400)
Parity = Literal["N", "E", "O"]


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where one Modbus bus is: at the TCP endpoint ``host`` and ``port``, or on the terminal ``serial``.

    ``framing`` is what a TCP endpoint speaks: ``tcp`` is Modbus TCP, ``rtu`` the frames of a serial line, which a
    "transparent" serial server passes on; a terminal always carries ``rtu``. ``baud``, ``parity`` and ``stop_bits`` are
    those of the line; of one behind a serial server only the speed counts, for the pauses. A gateway that does not echo
    the transaction ids of Modbus TCP needs ``echoes_transaction`` = false. ``timeout_s``: wall seconds that connecting,
    and then each answer, may take; on a line the time that the characters themselves take comes on top.
    """

    host: str = ""
    port: int = 0
    serial: str = ""
    baud: int = 9600
    parity: Parity = "N"
    stop_bits: Literal[1, 2] = 1
    framing: Literal["tcp", "rtu"] = "tcp"
    echoes_transaction: bool = True
    timeout_s: float = 1.0

    def __post_init__(self) -> None:
        if bool(self.host) == bool(self.serial):
            raise ValueError("a bus is either at a `host` and `port` or on a `serial` line")
        try:
            self.host.encode("idna")  # as it is looked up
        except UnicodeError as error:
            raise ValueError(f"`host` {self.host!r} is no host name: 1 to 63 characters between its dots") from error
        if self.host and not 1 <= self.port <= 0xFFFF:
            raise ValueError("`port` lies between 1 and 65535; Modbus TCP listens on 502")
        if self.serial and self.port:
            raise ValueError("a `serial` line has no `port`")
        if self.baud not in BAUDS:
            raise ValueError(f"`baud` is one of {', '.join(map(str, BAUDS))}")
        if not 0 < self.timeout_s <= 60:
            raise ValueError("`timeout_s` lies above 0 and up to 60")

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.serial or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")

    @property
    def speaks_rtu(self) -> bool:
        return bool(self.serial) or self.framing == "rtu"
