"""Values into registers, by a profile's map and pymodbus' own types.

Never by ``edge.codec``: a codec shared by both sides would cancel every word-order fault.
"""

from pymodbus.client.mixin import ModbusClientMixin

from edge.profile import Profile, Register

_TYPES = {
    "u16": ModbusClientMixin.DATATYPE.UINT16,
    "s16": ModbusClientMixin.DATATYPE.INT16,
    "u32": ModbusClientMixin.DATATYPE.UINT32,
    "s32": ModbusClientMixin.DATATYPE.INT32,
    "f32": ModbusClientMixin.DATATYPE.FLOAT32,
}
_LIMITS = {"u16": (0, 0xFFFF), "s16": (-0x8000, 0x7FFF), "u32": (0, 0xFFFFFFFF), "s32": (-0x80000000, 0x7FFFFFFF)}


def image(profile: Profile, function: int, values: dict[str, float]) -> dict[int, int]:
    """Lay out the words (for functions 1 and 2: the bits) of one function code, by their address."""
    words: dict[int, int] = {}
    for point in profile.point:
        if point.function == function:
            _place(point, values[point.metric], words)
    return words


def _place(point: Register, value: float, words: dict[int, int]) -> None:
    raw = (value - point.offset) / point.scale
    if point.type == "bit":
        if function_is_bits(point.function):
            words[point.register] = round(raw)
        else:  # several bit fields may share one register
            field = round(raw) & ((1 << point.width) - 1)
            words[point.register] = words.get(point.register, 0) | field << point.bit
        return
    for offset, word in enumerate(pack(point, raw)):
        words[point.register + offset] = word


def pack(point: Register, raw: float) -> list[int]:
    """One raw value as registers in the byte order of its map; a value out of the type's range saturates."""
    if point.type in _LIMITS:
        low, high = _LIMITS[point.type]
        raw = min(max(round(raw), low), high)
    # pymodbus swaps words only: ABCD and CDAB are its own, BADC and DCBA need the bytes of each word swapped as well.
    words = ModbusClientMixin.convert_to_registers(
        raw, _TYPES[point.type], word_order="little" if point.order in ("CDAB", "DCBA") else "big"
    )
    if point.order in ("BADC", "DCBA"):
        words = [(word & 0xFF) << 8 | word >> 8 for word in words]
    return words


def function_is_bits(function: int) -> bool:
    """Whether a read function asks for bits (coils, discrete inputs) rather than registers."""
    return function in (1, 2)
