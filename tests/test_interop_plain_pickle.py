"""Pickles of plain data come back; a pickle that would run something is refused by name, and has run nothing."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.errors import SteerlabError
from steerlab.interop.plain_pickle import loads
from steerlab.interop.records import SteeringVectorsRecord

# Written by Python's own module in another process, since this suite imports nothing that unpickles:
# {"jv": torch.arange(6.).reshape(2, 3).T, "en": np.arange(4, dtype="f4").reshape(2, 2), "n": [1, 2.5, None, True, "ü", (1,)]}
WRITTEN = {
    2: (
        "gAJ9cQAoWAIAAABqdnEBY3RvcmNoLl91dGlscwpfcmVidWlsZF90ZW5zb3JfdjIKcQIoY3RvcmNoLnN0b3JhZ2UKX2xvYWRfZnJv"
        "bV9ieXRlcwpxA2NfY29kZWNzCmVuY29kZQpxBFgjAQAAwoACwooKbMO8wpxGw7kgasKoUBkuwoACTcOpAy7CgAJ9cQAoWBAAAABw"
        "cm90b2NvbF92ZXJzaW9ucQFNw6kDWA0AAABsaXR0bGVfZW5kaWFucQLCiFgKAAAAdHlwZV9zaXplc3EDfXEEKFgFAAAAc2hvcnRx"
        "BUsCWAMAAABpbnRxBksEWAQAAABsb25ncQdLBHV1LsKAAihYBwAAAHN0b3JhZ2VxAGN0b3JjaApGbG9hdFN0b3JhZ2UKcQFYDgAA"
        "ADk0MTI1MjkzMTU3MDQwcQJYAwAAAGNwdXEDSwZOdHEEUS7CgAJdcQBYDgAAADk0MTI1MjkzMTU3MDQwcQFhLgYAAAAAAAAAAAAA"
        "AAAAwoA/AAAAQAAAQEAAAMKAQAAAwqBAcQVYBgAAAGxhdGluMXEGhnEHUnEIhXEJUnEKSwBLA0sChnELSwFLA4ZxDIljY29sbGVj"
        "dGlvbnMKT3JkZXJlZERpY3QKcQ0pUnEOdHEPUnEQWAIAAABlbnERY251bXB5Ll9jb3JlLm11bHRpYXJyYXkKX3JlY29uc3RydWN0"
        "CnESY251bXB5Cm5kYXJyYXkKcRNLAIVxFGgEWAEAAABicRVoBoZxFlJxF4dxGFJxGShLAUsCSwKGcRpjbnVtcHkKZHR5cGUKcRtY"
        "AgAAAGY0cRyJiIdxHVJxHihLA1gBAAAAPHEfTk5OSv////9K/////0sAdHEgYoloBFgRAAAAAAAAAAAAwoA/AAAAQAAAQEBxIWgG"
        "hnEiUnEjdHEkYlgBAAAAbnElXXEmKEsBR0AEAAAAAAAATohYAgAAAMO8cSdLAYVxKGV1Lg=="
    ),
    4: (
        "gASVZAIAAAAAAAB9lCiMAmp2lIwMdG9yY2guX3V0aWxzlIwSX3JlYnVpbGRfdGVuc29yX3YylJOUKIwNdG9yY2guc3RvcmFnZZSM"
        "EF9sb2FkX2Zyb21fYnl0ZXOUk5RCEwEAAIACigps/JxG+SBqqFAZLoACTekDLoACfXEAKFgQAAAAcHJvdG9jb2xfdmVyc2lvbnEB"
        "TekDWA0AAABsaXR0bGVfZW5kaWFucQKIWAoAAAB0eXBlX3NpemVzcQN9cQQoWAUAAABzaG9ydHEFSwJYAwAAAGludHEGSwRYBAAA"
        "AGxvbmdxB0sEdXUugAIoWAcAAABzdG9yYWdlcQBjdG9yY2gKRmxvYXRTdG9yYWdlCnEBWA4AAAA5NDEyNTI5MzE1NzA0MHECWAMA"
        "AABjcHVxA0sGTnRxBFEugAJdcQBYDgAAADk0MTI1MjkzMTU3MDQwcQFhLgYAAAAAAAAAAAAAAAAAgD8AAABAAABAQAAAgEAAAKBA"
        "lIWUUpRLAEsDSwKGlEsBSwOGlImMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpR0lFKUjAJlbpSMFm51bXB5Ll9jb3Jl"
        "Lm11bHRpYXJyYXmUjAxfcmVjb25zdHJ1Y3SUk5SMBW51bXB5lIwHbmRhcnJheZSTlEsAhZRDAWKUh5RSlChLAUsCSwKGlGgXjAVk"
        "dHlwZZSTlIwCZjSUiYiHlFKUKEsDjAE8lE5OTkr/////Sv////9LAHSUYolDEAAAAAAAAIA/AAAAQAAAQECUdJRijAFulF2UKEsB"
        "R0AEAAAAAAAAToiMAsO8lEsBhZRldS4="
    ),
    5: (
        "gAWVTwIAAAAAAAB9lCiMAmp2lIwMdG9yY2guX3V0aWxzlIwSX3JlYnVpbGRfdGVuc29yX3YylJOUKIwNdG9yY2guc3RvcmFnZZSM"
        "EF9sb2FkX2Zyb21fYnl0ZXOUk5RCEwEAAIACigps/JxG+SBqqFAZLoACTekDLoACfXEAKFgQAAAAcHJvdG9jb2xfdmVyc2lvbnEB"
        "TekDWA0AAABsaXR0bGVfZW5kaWFucQKIWAoAAAB0eXBlX3NpemVzcQN9cQQoWAUAAABzaG9ydHEFSwJYAwAAAGludHEGSwRYBAAA"
        "AGxvbmdxB0sEdXUugAIoWAcAAABzdG9yYWdlcQBjdG9yY2gKRmxvYXRTdG9yYWdlCnEBWA4AAAA5NDEyNTI5MzE1NzA0MHECWAMA"
        "AABjcHVxA0sGTnRxBFEugAJdcQBYDgAAADk0MTI1MjkzMTU3MDQwcQFhLgYAAAAAAAAAAAAAAAAAgD8AAABAAABAQAAAgEAAAKBA"
        "lIWUUpRLAEsDSwKGlEsBSwOGlImMC2NvbGxlY3Rpb25zlIwLT3JkZXJlZERpY3SUk5QpUpR0lFKUjAJlbpSME251bXB5Ll9jb3Jl"
        "Lm51bWVyaWOUjAtfZnJvbWJ1ZmZlcpSTlCiWEAAAAAAAAAAAAAAAAACAPwAAAEAAAEBAlIwFbnVtcHmUjAVkdHlwZZSTlIwCZjSU"
        "iYiHlFKUKEsDjAE8lE5OTkr/////Sv////9LAHSUYksCSwKGlIwBQ5R0lFKUjAFulF2UKEsBR0AEAAAAAAAAToiMAsO8lEsBhZRl"
        "dS4="
    ),
}


@pytest.mark.parametrize("protocol", WRITTEN)
def test_what_python_pickles_comes_back(protocol: int) -> None:
    found = loads(base64.b64decode(WRITTEN[protocol]), "f.pkl")
    assert isinstance(found, dict) and list(found) == ["jv", "en", "n"]
    assert torch.equal(found["jv"], torch.arange(6.0).reshape(2, 3).T)
    np.testing.assert_array_equal(found["en"], np.arange(4, dtype="f4").reshape(2, 2))
    assert found["n"] == [1, 2.5, None, True, "ü", (1,)]


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (b"cos\nsystem\n(S'touch {}'\ntR.", "os.system"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c{}touch {}\x85R.", "posix.system"),
        (b'cbuiltins\neval\n(S\'open("{}","w")\'\ntR.', "builtins.eval"),
        (b"cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.", "builtins.getattr"),
        (b"(S'touch {}'\nios\nsystem\n.", "INST"),
        (b"\x80\x02}cnumpy.testing\nrunstring\n(S'x'\n}tR.", "numpy.testing.runstring"),
        (b"ctorch.serialization\nload\n(S'{}'\ntR.", "torch.serialization.load"),
        (b"\x80\x02cpandas\nread_pickle\n(S'x'\ntR.", "pandas.read_pickle"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"Pevil\n.", "PERSID"),
    ],
)
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, program: bytes, named: str
) -> None:
    target = tmp_path / "ran"
    data = program.replace(b"\x8c{}touch {}", bytes([0x8C, 6 + len(str(target))]) + f"touch {target}".encode())
    with pytest.raises(SteerlabError, match=named) as caught:
        loads(data.replace(b"{}", str(target).encode()), "f.pkl")
    assert not target.exists() and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"(",
        b"\x80\x04]\x94h\x05.",  # a memo that is not there
        b"\x80\x02cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.",  # an array of objects
        b"\x80\x02cnumpy\nndarray\n.",  # a name in place of a value
        b"\x80\x02cnumpy\nndarray\n(tR.",
        b"(" * 50 + b"t" * 50 + b".",  # nested deeper than data is
        b"\x80\x02ctorch.storage\n_load_from_bytes\n(C\x04evilt R.",
        b"]}a" + b"}b.",
        b"a.",
        b"t.",
        b"0.",
    ],
)
def test_a_broken_pickle_gives_one_sentence(program: bytes) -> None:
    with pytest.raises(SteerlabError, match="f.pkl is no whole pickle") as caught:
        loads(program, "f.pkl")
    assert "\n" not in str(caught.value)


@given(
    st.sampled_from(list(WRITTEN)),
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 3000),
)
@settings(max_examples=300, deadline=None)
def test_a_damaged_pickle_is_read_or_refused(protocol: int, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(base64.b64decode(WRITTEN[protocol]))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        loads(bytes(data[: cut or None]), "f.pkl")
    except SteerlabError as error:
        assert str(error).startswith("f.pkl ")


def test_an_instance_of_a_known_class_is_its_fields() -> None:
    program = b"\x80\x02csteering_vectors.steering_vector\nSteeringVector\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    found = loads(program, "f.pkl")
    assert isinstance(found, SteeringVectorsRecord) and vars(found) == {"a": 1}


def test_a_small_file_does_not_grow_large() -> None:
    """Lists of ten times the list before, ten deep: 10^10 places, and one list each."""
    program = b"\x80\x02]q\x00K\x01a" + b"".join(
        b"]q%c(" % (level + 1) + b"h%c" % level * 10 + b"e" for level in range(10)
    )
    found = loads(program + b"h\x0a.", "f.pkl")
    assert isinstance(found, list) and len(found) == 10 and all(one is found[0] for one in found)
    with pytest.raises(SteerlabError, match="nested more than"):
        loads(b"\x80\x02]q\x00h\x00a.", "f.pkl")  # a list that holds itself
