"""The mutator of the fuzzing: the same numbers give the same bytes, and its ways know the forms that they change."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from random import Random
from typing import Any

import cbor2
import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import messages, mutator
from tests.fuzz.mutator import Member, Mutator, Way
from wire.sparkplug import Datatype, Metric, Payload, decode, encode

TEXT = b'{"time":"2026-06-18T03:12:45Z","object":{"angle_x":-12.5,"on":true,"of":null},"list":[1,{"a":2},"b"]}'
PACK: list[dict[object, object]] = [{-2: "a/", 0: "b", 2: 1.5}, {0: "c", 4: True}]
PACKED, MEMBERS = mutator.packed(PACK, mutator.CBOR_PACKING)
DATA = encode(Payload(10**9, 7, (Metric("a", 1, datatype=Datatype.DOUBLE, value=2.5), Metric("b", value=3))))
FORMS: dict[str, tuple[Sequence[Way], bytes]] = {
    "bytes": (mutator.BYTES, bytes(range(40))),
    "frame": (mutator.FRAME, bytes(range(40))),
    "words": (mutator.WORDS, bytes(40)),
    "json": (mutator.JSON, TEXT),
    "protobuf": (mutator.PROTOBUF, DATA),
    "cbor": (mutator.cbor({PACKED: MEMBERS}), PACKED),
    "msgpack": (mutator.msgpack({PACKED: MEMBERS}), PACKED),
}
CODE = st.builds(mutator.code, st.integers(0, 255), st.integers(0, 2**16 - 1), st.integers(0, 2**24 - 1))


def way(one: Way, data: bytes) -> Mutator:
    return Mutator([one], [data])


def everywhere(one: Way, data: bytes) -> list[bytes]:
    """What one way makes of a message, all over it and with many things."""
    mutate = way(one, data)
    return [
        mutate(data, [mutator.code(0, at, what)]) for at in range(0, 2**16, 1999) for what in range(0, 2**24, 499_979)
    ]


def test_the_same_numbers_make_the_same_inputs_on_any_machine() -> None:
    random, digest = Random("chirpstack 1 0"), sha256()
    for ways, valid in FORMS.values():
        mutate = Mutator(ways, [valid])
        for _ in range(1000):
            digest.update(mutate(valid, mutator.codes(random)))
    # Another mutator makes other inputs: then a seed that once broke something says nothing any more.
    assert digest.hexdigest()[:16] == "4920882f2f5aece8"


def test_few_mutations_make_an_input() -> None:
    random = Random(1)
    counts = [len(mutator.codes(random)) for _ in range(1000)]
    assert set(counts) == {1, 2, 3, 4, 6}
    assert sum(counts) / 1000 == pytest.approx(1.7, abs=0.3)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_any_bytes_can_be_mutated(form: str, data: st.DataObject) -> None:
    ways, valid = FORMS[form]
    given_ = data.draw(st.binary(max_size=60) | st.just(valid))
    mutations = data.draw(st.lists(CODE, min_size=1, max_size=6))
    mutate = Mutator(ways, [valid])
    assert mutate(given_, mutations) == mutate(given_, mutations)


@pytest.mark.parametrize("form", FORMS)
def test_a_good_part_of_the_mutations_changes_something(form: str) -> None:
    ways, valid = FORMS[form]
    mutate, random = Mutator(ways, [valid]), Random(2)
    changed = {mutate(valid, [random.getrandbits(mutator.BITS)]) for _ in range(500)} - {valid}
    assert len(changed) > 100


@pytest.mark.parametrize(
    "one", [mutator.json_swap, mutator.json_drop, mutator.json_graft, mutator.json_repeat, mutator.json_nest]
)
def test_what_is_made_of_json_by_its_form_is_json(one: Way) -> None:
    made = set(everywhere(one, TEXT))
    assert len(made) >= 3
    for text in made:
        with suppress(RecursionError):
            json.loads(text)


def test_a_member_of_an_object_is_dropped_or_said_twice() -> None:
    members = {text.count(b":") for text in everywhere(mutator.json_drop, TEXT)}
    assert members == {TEXT.count(b":") - 1, TEXT.count(b":") - 3}  # a time has two of its own
    twice = [text for text in everywhere(mutator.json_double, TEXT) if text.count(b'"angle_x"') == 2]
    said: list[object] = []
    for text in twice:
        with suppress(ValueError, RecursionError):  # a literal need not be one of JSON
            said.append(json.loads(text)["object"]["angle_x"])
    assert said.count(-12.5) > len(said) / 3
    assert len(set(map(str, said))) > 5


def test_a_digit_stays_a_digit() -> None:
    for text in everywhere(mutator.json_digit, TEXT):
        assert len(text) == len(TEXT)
        assert sum(a != b for a, b in zip(text, TEXT, strict=True)) <= 1


def test_lengths_in_protobuf_are_mended() -> None:
    structural = [each for each in mutator.PROTOBUF if each.__name__ == "way"]
    assert len(structural) > 5
    told: list[Payload] = []
    broken = 0
    for one in structural:
        for data in everywhere(one, DATA)[::7]:
            try:
                told.append(decode(data))
            except ValueError as error:  # for what it says, mostly, and not for its lengths
                broken += "Error parsing" in str(error)
    assert broken < len(told) / 10
    values = [metric.value for payload in told for metric in payload.metrics]
    assert {True, -1e308, math.inf, "12.5"} & set(values)
    assert len({len(payload.metrics) for payload in told}) >= 3


@pytest.mark.parametrize("packing", [mutator.CBOR_PACKING, mutator.MSGPACK_PACKING])
def test_packs_are_written_as_the_libraries_read_them(packing: mutator.Packing) -> None:
    read: Any = cbor2.loads if packing is mutator.CBOR_PACKING else msgspec.msgpack.decode
    message = {"a": [1, 2.5, "three", {"b": None}], "c": b"\0\1", "d": {}}
    data, members = mutator.packed(message, packing)
    assert read(data) == message
    values = [read(data[member.value : member.end]) for member in members]
    assert values == [message["a"], 1, 2.5, "three", {"b": None}, None, b"\0\1", {}]
    names = [read(data[member.start : member.value]) for member in members if member.start < member.value]
    assert names == ["a", "b", "c", "d"]


def test_counts_in_packs_are_mended_in_most_cases() -> None:
    members: Mapping[bytes, Sequence[Member]] = {PACKED: MEMBERS}
    for one in mutator.cbor(members)[:10]:
        made = everywhere(one, PACKED)
        assert sum(_is_pack(data) for data in made) > len(made) / 3


def _is_pack(data: bytes) -> bool:
    try:
        cbor2.loads(data, allow_duplicate_keys=True)
    except (cbor2.CBORDecodeError, ValueError, OverflowError):
        return False
    return True


@given(st.integers(0, 2**64 - 1))
def test_varints_are_protobufs(number: int) -> None:
    assert decode(b"\x08" + mutator.varint(min(number, 2**40))).at == min(number, 2**40) * 10**6
    assert len(mutator.varint(number)) == max(1, math.ceil(number.bit_length() / 7))


@given(st.binary(max_size=3000))
def test_a_frame_that_compresses_nothing_is_zstandard(data: bytes) -> None:
    frame = messages.uncompressed(data)
    assert zstandard.frame_content_size(frame) == len(data)
    assert zstandard.ZstdDecompressor().decompress(frame) == data


def test_replies_keep_their_length_or_nearly() -> None:
    assert {len(data) for one in mutator.WORDS for data in everywhere(one, bytes(40))} <= set(range(40, 48))
    (number,) = struct.unpack(">d", mutator._EXTREMES[-1])
    assert number == pytest.approx(1.797e308, rel=1e-3)


def test_every_valid_message_is_one() -> None:
    assert len(list(messages.crossing())) == 9
    for name in messages.speaking("lorawan"):
        assert messages.golden_messages(name), f"{name} has no golden message"
