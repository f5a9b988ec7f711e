"""States come back to the bit, or not at all."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf import errors
from mslt_tf.data.reading import stored_states

N, S, D = 7, 3, 5
DESCRIPTION = stored_states.Description(
  data_fingerprint="f1",
  weights_sha256="e2",
  dtype="float32",
  num_examples=N,
  sequence_length=S,
  hidden_size=D,
)


@pytest.fixture
def states():
  return np.random.default_rng(0).normal(size=[N, S, D]).astype(np.float32)


def _parts(states):
  return [states[:4], states[4:]]


def _of(stored, numbers):
  """Returns the states of examples as a pipeline gets them."""
  (found,) = tf.data.Dataset.from_tensors(tf.constant(numbers, tf.int64)).map(
    stored.of_examples
  )
  return found


def test_an_example_gets_its_own_states(states, tmp_path):
  stored = stored_states.write(str(tmp_path), DESCRIPTION, _parts(states))
  found = _of(stored, [6, 0, 4, 4])
  assert found.dtype == tf.float32
  np.testing.assert_array_equal(found, states[[6, 0, 4, 4]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_of_two_bytes_keep_every_bit(dtype, states, tmp_path):
  exact = tf.cast(states, dtype)
  description = dataclasses.replace(DESCRIPTION, dtype=dtype)
  stored = stored_states.write(
    str(tmp_path), description, _parts(exact.numpy())
  )
  assert os.path.getsize(tmp_path / "states.bin") == 2 * N * S * D
  assert description.num_bytes == 2 * N * S * D
  found = _of(stored, range(N))
  assert found.dtype == exact.dtype
  np.testing.assert_array_equal(
    tf.bitcast(found, tf.uint16), tf.bitcast(exact, tf.uint16)
  )


def test_what_was_stored_is_found_again(states, tmp_path):
  assert stored_states.find(str(tmp_path), DESCRIPTION) is None
  stored_states.write(str(tmp_path), DESCRIPTION, _parts(states))
  found = stored_states.find(str(tmp_path), DESCRIPTION)
  np.testing.assert_array_equal(_of(found, range(N)), states)


@pytest.mark.parametrize(
  "other",
  [
    {"data_fingerprint": "f2"},
    {"weights_sha256": "e3"},
    {"dtype": "bfloat16"},
    {"num_examples": 6},
    {"sequence_length": 5, "hidden_size": 3},
  ],
  ids=lambda other: next(iter(other)),
)
def test_states_of_something_else_are_not_taken(other, states, tmp_path):
  stored_states.write(str(tmp_path), DESCRIPTION, _parts(states))
  wanted = dataclasses.replace(DESCRIPTION, **other)
  assert stored_states.find(str(tmp_path), wanted) is None


@pytest.mark.parametrize("damage", ["a bit", "cut off", "gone"])
def test_damaged_states_are_not_taken(damage, states, tmp_path):
  stored_states.write(str(tmp_path), DESCRIPTION, _parts(states))
  path = tmp_path / "states.bin"
  content = bytearray(path.read_bytes())
  content[20] ^= 1
  if damage == "gone":
    path.unlink()
  else:
    path.write_bytes(content if damage == "a bit" else content[:-1])
  assert stored_states.find(str(tmp_path), DESCRIPTION) is None


def test_an_error_on_the_way_leaves_none(states, tmp_path):
  def parts():
    yield states[:4]
    raise KeyError("stopped")

  stored_states.write(str(tmp_path), DESCRIPTION, _parts(states))
  with pytest.raises(KeyError):
    stored_states.write(str(tmp_path), DESCRIPTION, parts())
  assert stored_states.find(str(tmp_path), DESCRIPTION) is None


def test_what_a_kill_left_is_removed(states, tmp_path):
  piece = tmp_path / f"states.bin.{'0' * 32}"
  piece.write_bytes(b"half")
  stored_states.write(str(tmp_path), DESCRIPTION, _parts(states))
  assert sorted(os.listdir(tmp_path)) == ["states.bin", "states.json"]


def test_a_directory_that_cannot_be_written_is_named(states, tmp_path):
  (tmp_path / "file").write_text("")
  directory = str(tmp_path / "file" / "states")
  with pytest.raises(errors.InputError, match=f"^{directory} cannot be writ"):
    stored_states.write(directory, DESCRIPTION, _parts(states))
