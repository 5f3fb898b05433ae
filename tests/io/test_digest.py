import numpy as np

from reid.io.digest import DIGEST_LENGTH, compute_digest, compute_file_digest

# The example of FIPS 180-4 for the message "abc".
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_digest_of_a_published_example():
    assert compute_digest(b"abc") == ABC
    assert len(ABC) == DIGEST_LENGTH


def test_pieces_and_arrays_have_the_digest_of_their_concatenation(tmp_path):
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    (tmp_path / "file").write_bytes(b"abc" + values.tobytes())
    expected = compute_digest(b"abc" + values.tobytes())
    assert compute_digest(b"a", bytearray(b"bc"), memoryview(values)) == expected
    assert compute_file_digest(tmp_path / "file") == expected


def test_the_start_of_a_file(tmp_path):
    data = bytes(range(256)) * 3000  # longer than a piece
    (tmp_path / "file").write_bytes(data)
    for length in (0, 1, 2**18, 2**18 + 1, len(data), None):
        assert compute_file_digest(tmp_path / "file", length) == compute_digest(data[:length])
