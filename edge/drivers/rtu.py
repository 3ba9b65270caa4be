"""Modbus RTU: frames that only their length and checksum delimit (Modbus over serial line 1.02, section 2.5.1).

Nothing in such a frame names the question, so a late answer of the same unit, function and length is like the right
one. What keeps it from being taken is time: see ``Connection``.
"""

from edge.drivers.pdu import Failed, Garbled, Misfit, NoAnswer, Question

_AROUND = 3  # bytes of a frame around its PDU: unit and checksum
_SHORTEST = 5  # bytes of an answer: an exception
_BABBLE = 512  # bytes: two frames of any length
_CHARACTER_BITS = 11  # start, eight of data, parity or a second stop, stop
_FIXED_SILENCE_S = 0.00175  # above 19200 baud, where 3.5 characters are too short to be kept


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


_REMAINDERS = tuple(_remainder(byte) for byte in range(256))


def checksum(data: bytes) -> bytes:
    """Work out the CRC-16 of a frame as it is sent, low byte first: 00 00 for a frame that ends with its own."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _REMAINDERS[(crc ^ byte) & 0xFF]
    return crc.to_bytes(2, "little")


class Rtu:
    """The frames of one line, or of one connection to a server that passes a line's bytes on.

    An answer may have noise in front of it, as lines make it when a sender is switched on, and answers of other units,
    whom somebody has given up; the time-out tells of them if the right one does not follow.
    """

    tells_apart = False

    def __init__(self, baud: int) -> None:
        self.character_s = _CHARACTER_BITS / baud
        self.silence_s = _FIXED_SILENCE_S if baud > 19200 else 3.5 * self.character_s
        self._unit = 0
        self._question: Question | None = None
        self._heard = b""

    def ask(self, unit: int, question: Question) -> bytes:
        self._unit = unit
        self._question = question
        self._heard = b""
        frame = bytes((unit,)) + question.pdu
        return frame + checksum(frame)

    def hear(self, data: bytes) -> bytes | None:
        unit, question = self._unit, self._question
        if question is None:
            return None
        self._heard = heard = self._heard + data
        at = 0
        while 0 <= at < len(heard):
            end = _end_of_frame(heard, at)
            if not end:
                at = heard.find(unit, at + 1)
            elif heard[at] == unit:
                self._question = None
                return question.take(unit, unit, heard[at + 1 : end - 2])
            else:
                at = end
        if len(heard) >= _AROUND + question.length and heard.startswith(bytes((unit,)) + question.head):
            raise Garbled(f"{question.to(unit)}: wrong checksum: {heard.hex(' ')}")
        if len(heard) > _BABBLE:
            raise Garbled(f"{question.to(unit)}: {len(heard)} bytes that are no answer: {heard[:8].hex(' ')}")
        return None

    def silent(self, waited_s: float) -> Failed:
        if self._question is None:
            return NoAnswer("nothing was asked")
        asked, heard = self._question.to(self._unit), self._heard
        if not heard:
            return NoAnswer(f"{asked}: no answer within {waited_s:.3g} s")
        head, whole = bytes((self._unit,)) + self._question.head, _AROUND + self._question.length
        if head.startswith(heard[: len(head)]):
            return NoAnswer(f"{asked}: {len(heard)} of {whole} bytes within {waited_s:.3g} s")
        kind = Misfit if _end_of_frame(heard, 0) else Garbled
        return kind(f"{asked}: {whole} bytes wanted, got {len(heard)} of {heard[:8].hex(' ')}")


def _end_of_frame(heard: bytes, at: int) -> int:
    """Find where the whole and right answer ends that begins at ``at``; 0 when none does."""
    if len(heard) < at + _SHORTEST:
        return 0
    function, size = heard[at + 1], heard[at + 2]
    if function & 0x80:
        end = at + _SHORTEST
    elif function in (1, 2, 3, 4):
        end = at + 3 + size + 2
    elif function in (5, 6, 15, 16):
        end = at + 8
    else:
        return 0
    return end if end <= len(heard) and checksum(heard[at:end]) == b"\0\0" else 0
