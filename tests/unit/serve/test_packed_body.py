from __future__ import annotations

import gzip
import zlib

import pytest

from sat_xception.serve.packed_body import UnpackedTooLargeError, unpack
from sat_xception.serve.protocol import Code, RequestError

BODY = b'{"instances": [%s]}' % b",".join(b"%d" % (n * n) for n in range(500))
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
PACKED = {
    "gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "bare deflate": RAW.compress(BODY) + RAW.flush(),
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_packed_body_is_whole_or_refused_wherever_it_is_cut(kind):
    packed, encoding = PACKED[kind], kind.split()[-1]
    assert unpack(packed, encoding, len(BODY)) == BODY
    for size in range(len(packed)):
        with pytest.raises(RequestError) as caught:
            unpack(packed[:size], encoding, len(BODY))
        assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_body_that_is_cut_says_so():
    with pytest.raises(RequestError, match=r"gzip is cut after .* bytes; send it whole"):
        unpack(PACKED["gzip"][:-1], "gzip", len(BODY))


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_a_body_that_is_not_packed_stays_as_it_is(encoding):
    assert unpack(BODY, encoding, 1) == BODY


def test_members_of_a_gzip_follow_each_other_and_garbage_does_not():
    assert unpack(gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), " GZIP ", len(BODY)) == BODY
    for kind in PACKED:
        with pytest.raises(RequestError, match="can't be read"):
            unpack(PACKED[kind] + b"more", kind.split()[-1], len(BODY))


def test_damage_inside_is_found_by_the_checksum():
    damaged = bytearray(PACKED["gzip"])
    damaged[-6] ^= 1
    with pytest.raises(RequestError, match="it is no gzip"):
        unpack(bytes(damaged), "gzip", len(BODY))


@pytest.mark.parametrize("members", [1, 50])
def test_no_more_is_unpacked_than_is_allowed(members):
    with pytest.raises(UnpackedTooLargeError):
        unpack(gzip.compress(bytes(10_000)) * members, "gzip", 9_999)


def test_another_packing_is_refused_by_its_name():
    with pytest.raises(RequestError, match="'br'; send gzip, deflate, or none"):
        unpack(BODY, "br", len(BODY))
