"""RTU frames without a line: checksums, makers' golden frames, noise, other units' answers, what silence means."""

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from edge.drivers.pdu import Declined, Failed, Garbled, Misfit, NoAnswer, Question, Write, reading, writing
from edge.drivers.rtu import Rtu, checksum
from edge.drivers.tcp import Mbap, transactions
from edge.plan import Request
from tests.modbus_server import crc

READ = reading(Request(3, 10, 2, (0, 1)))
ANSWER = bytes.fromhex("01 03 04 000a 000b")
ANSWER += crc(ANSWER)
NEIGHBOURS = bytes.fromhex("02 03 04 dead beef")
NEIGHBOURS += crc(NEIGHBOURS)


def asked(unit: int = 1, question: Question = READ) -> Rtu:
    line = Rtu(9600)
    line.ask(unit, question)
    return line


# DFRobot SEN0492 wiki page, "read distance" (1803 mm); XUNCHIP XM9505 product page (53.6 mm).
@pytest.mark.parametrize(
    ("unit", "start", "question", "answer", "data"),
    [
        (0x50, 0x34, "50 03 00 34 00 01 C8 45", "50 03 02 07 0B 06 7F", "07 0B"),
        (0x01, 0x00, "01 03 00 00 00 01 84 0A", "01 03 02 02 18 B9 2E", "02 18"),
    ],
)
def test_frames_are_as_makers_print_them(unit: int, start: int, question: str, answer: str, data: str) -> None:
    line = Rtu(9600)
    assert line.ask(unit, reading(Request(3, start, 1, (0,)))) == bytes.fromhex(question)
    assert line.hear(bytes.fromhex(answer)) == bytes.fromhex(data)


@given(st.binary(max_size=256))
def test_the_checksum_is_the_specifications(data: bytes) -> None:
    assert checksum(data) == crc(data)
    assert checksum(data + crc(data)) == b"\0\0"


@pytest.mark.parametrize(
    ("write", "frame"),
    [
        (Write(5, 0x00AC, 1), "11 05 00 AC FF 00"),
        (Write(6, 0x0001, 3), "11 06 00 01 00 03"),
        (Write(16, 0x0001, 0x010A), "11 10 00 01 00 01 02 01 0A"),
    ],
)
def test_a_write_is_framed_and_its_echo_taken(write: Write, frame: str) -> None:
    line, body = Rtu(9600), bytes.fromhex(frame)
    assert line.ask(0x11, writing(write)) == body + crc(body)
    assert line.hear(body[:6] + crc(body[:6])) == b""


@given(
    noise=st.binary(max_size=4),
    neighbours=st.integers(0, 2),
    cuts=st.sets(st.integers(1, 30)),
)
@example(noise=b"\x01", neighbours=0, cuts=set())
@example(noise=b"\x01\x03", neighbours=1, cuts={1, 2, 3})
def test_an_answer_is_found_behind_noise_and_others_answers_however_it_is_cut(
    noise: bytes, neighbours: int, cuts: set[int]
) -> None:
    assume(not noise.startswith(ANSWER[:3]))
    sent = NEIGHBOURS * neighbours + noise + ANSWER
    line, edges = asked(), [0, *sorted(cut for cut in cuts if cut < len(sent)), len(sent)]
    pieces = [sent[start:end] for start, end in pairwise(edges)]
    *early, last = [line.hear(piece) for piece in pieces]
    assert not any(early)
    assert last == ANSWER[3:-2]
    assert line.hear(ANSWER) is None  # nothing is asked any more


@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from([NEIGHBOURS, ANSWER[:-1], ANSWER[:5]])), max_size=6))
def test_nothing_but_a_right_answer_is_taken(pieces: list[bytes]) -> None:
    line, heard = asked(), b""
    for piece in pieces:
        heard += piece
        try:
            data = line.hear(piece)
        except Failed:
            return
        if data is not None:
            frame = ANSWER[:3] + data
            assert frame + crc(frame) in heard
            return


@given(st.lists(st.one_of(st.binary(max_size=300), st.just(ANSWER), st.just(b"\0\1\0\0\0\7\1\3\4")), max_size=6))
@example([bytes.fromhex("0001 0000 0003 01 83 02")])
def test_any_bytes_are_an_answer_a_failure_or_not_enough(pieces: list[bytes]) -> None:
    for framing in (Rtu(9600), Mbap(transactions()), Mbap(transactions(), echoes=False)):
        framing.ask(1, READ)
        for piece in pieces:
            with suppress(Failed):
                assert len(framing.hear(piece) or b"1234") == 4


@pytest.mark.parametrize("code", [2, 6])
def test_an_exception_is_an_answer(code: int) -> None:
    body = bytes([1, 0x83, code])
    with pytest.raises(Declined, match=f"exception {code:02d}"):
        asked().hear(body + crc(body))


@pytest.mark.parametrize(
    ("heard", "kind"),
    [
        (ANSWER[:-1] + b"\0", Garbled),
        (ANSWER[:4] + b"\x01" + ANSWER[5:], Garbled),
        (b"\x55" * 513, Garbled),
        (bytes.fromhex("01 04 04 000a 000b") + crc(bytes.fromhex("01 04 04 000a 000b")), Misfit),
        (bytes.fromhex("01 03 02 000a") + crc(bytes.fromhex("01 03 02 000a")), Misfit),
    ],
    ids=["checksum", "a bit", "babble", "function", "length"],
)
def test_what_cannot_become_an_answer_is_known_at_once(heard: bytes, kind: type[Failed]) -> None:
    with pytest.raises(kind, match="unit 1 function 3 addresses 10 to 11") as failed:
        asked().hear(heard)
    assert type(failed.value) is kind


@pytest.mark.parametrize(
    ("heard", "kind"),
    [
        (b"", NoAnswer),
        (ANSWER[:1], NoAnswer),
        (ANSWER[:-1], NoAnswer),
        (NEIGHBOURS, Misfit),
        (NEIGHBOURS[:-1], Garbled),
        (b"\xff", Garbled),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Garbled),
    ],
    ids=["nothing", "a byte", "all but one", "another's", "another's, cut", "noise", "not modbus"],
)
def test_what_was_heard_says_what_silence_means(heard: bytes, kind: type[Failed]) -> None:
    line = asked()
    assert line.hear(heard) is None
    failure = line.silent(1.0)
    assert type(failure) is kind
    assert "unit 1 function 3 addresses 10 to 11" in str(failure)


def test_what_came_before_a_question_is_forgotten() -> None:
    line = asked()
    line.hear(NEIGHBOURS[:5])
    line.ask(1, READ)
    assert line.hear(ANSWER) == ANSWER[3:-2]


@pytest.mark.parametrize(
    ("baud", "silence_ms"), [(2400, 16.04), (9600, 4.01), (19200, 2.005), (38400, 1.75), (115200, 1.75)]
)
def test_frames_are_apart_by_three_and_a_half_characters(baud: int, silence_ms: float) -> None:
    assert Rtu(baud).silence_s * 1000 == pytest.approx(silence_ms, abs=0.01)
