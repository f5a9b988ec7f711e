"""The format against its own package, and files that lie."""

import json
import struct

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.interop import safetensors_file

ARRAYS = {
  "b": np.arange(6, dtype=np.float32).reshape(2, 3),
  "a": np.array(-0.5, np.float32),
  "empty": np.zeros([0, 3], np.float32),
}


def write_raw(path, header, data=b"", *, length=None):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  size = len(text) if length is None else length
  path.write_bytes(struct.pack("<Q", size) + text + data)


def test_what_is_written_is_read(tmp_path):
  path = str(tmp_path / "a.safetensors")
  safetensors_file.write(path, ARRAYS)
  entries = safetensors_file.read_entries(path)
  assert entries.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    found = safetensors_file.read_float32(path, entries[name])
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape


def test_the_package_reads_what_is_written(tmp_path):
  package = pytest.importorskip("safetensors.numpy", reason="extra interop")
  path = str(tmp_path / "a.safetensors")
  safetensors_file.write(path, ARRAYS)
  found = package.load_file(path)
  assert found.keys() == ARRAYS.keys()
  for name, array in ARRAYS.items():
    np.testing.assert_array_equal(found[name], array)


def test_what_the_package_writes_is_read(tmp_path):
  package = pytest.importorskip("safetensors.numpy", reason="extra interop")
  path = str(tmp_path / "a.safetensors")
  package.save_file({**ARRAYS, "ids": np.arange(3)}, path)
  entries = safetensors_file.read_entries(path)
  np.testing.assert_array_equal(
    safetensors_file.read_float32(path, entries["b"]), ARRAYS["b"]
  )
  assert (entries["ids"].dtype, entries["ids"].shape) == ("I64", (3,))
  with pytest.raises(errors.InputError, match="dtype=I64"):
    safetensors_file.read_float32(path, entries["ids"])


def test_half_precision_is_widened(tmp_path):
  path = tmp_path / "a.safetensors"
  fields = {"shape": [2], "data_offsets": [0, 4]}
  # 1.5 and -2: sign, exponent and fraction by hand.
  write_raw(path, {"a": {"dtype": "BF16", **fields}}, b"\xc0\x3f\x00\xc0")
  (entry,) = safetensors_file.read_entries(str(path)).values()
  found = safetensors_file.read_float32(str(path), entry)
  np.testing.assert_array_equal(found, np.array([1.5, -2], np.float32))
  write_raw(path, {"a": {"dtype": "F16", **fields}}, b"\x00\x3e\x00\xc0")
  (entry,) = safetensors_file.read_entries(str(path)).values()
  found = safetensors_file.read_float32(str(path), entry)
  np.testing.assert_array_equal(found, np.array([1.5, -2], np.float32))
  assert found.dtype == np.float32


def entry(begin=0, end=8, *, dtype="F32", shape=(2,)):
  return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
  ("header", "length", "message"),
  [
    ({"a": entry()}, 2**60, "a header of 1152921504606846976 bytes"),
    ({"a": entry()}, 10**8 + 1, "a header of 100000001 bytes"),
    (b"{", None, "its header is no JSON"),
    (b"\xff\xfe", None, "its header is no JSON"),
    (b"[1]", None, "its header is no JSON object"),
    (b'{"a": 1, "a": 2}', None, "a name stands there twice"),
    ({"a": 7}, None, "array 'a' is no JSON object"),
    ({"a": entry(dtype="F31")}, None, "has dtype=F31"),
    ({"a": entry(dtype=["F32"])}, None, "has dtype="),
    ({"a": entry(shape=[-2])}, None, "has shape=[-2]"),
    ({"a": entry(shape=[2.0])}, None, "has shape=[2.0]"),
    ({"a": entry(shape=[True, 2])}, None, "has shape=[True, 2]"),
    ({"a": entry(shape=[2**60])}, None, "has shape="),
    ({"a": entry(shape=[1] * 9)}, None, "has shape="),
    ({"a": entry(shape=[2**40] * 4)}, None, "which is not the size"),
    ({"a": entry(0, 12)}, None, "which is not the size of F32"),
    ({"a": entry(8, 0)}, None, "which is not the size"),
    ({"a": entry(), "b": entry(4, 12)}, None, "'b' begins at byte"),
    ({"a": entry(), "b": entry(12, 20)}, None, "'b' begins at byte"),
    ({"a": entry(8, 16)}, None, "'a' begins at byte"),
    ({"a": entry(), "b": entry(8, 16)}, None, "its header tells of"),
    ({}, None, "its header tells of"),
  ],
)
def test_a_file_that_lies_is_one_clear_line(tmp_path, header, length, message):
  path = tmp_path / "a.safetensors"
  write_raw(path, header, b"\0" * 8, length=length)
  with pytest.raises(errors.InputError) as error:
    safetensors_file.read_entries(str(path))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_bytes", [0, 5, 8, 60, -1])
def test_a_file_that_is_cut_off_is_damaged(tmp_path, num_bytes):
  path = tmp_path / "a.safetensors"
  safetensors_file.write(str(path), ARRAYS)
  path.write_bytes(path.read_bytes()[:num_bytes])
  with pytest.raises(errors.InputError, match="is damaged"):
    safetensors_file.read_entries(str(path))


def test_a_directory_in_its_place_is_told(tmp_path):
  with pytest.raises(errors.InputError, match=f"{tmp_path} cannot be read: "):
    safetensors_file.read_entries(str(tmp_path))


def test_a_missing_file_is_told(tmp_path):
  with pytest.raises(errors.InputError, match="cannot be read"):
    safetensors_file.read_entries(str(tmp_path / "none"))
