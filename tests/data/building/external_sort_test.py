"""Files of sorted records give back ranges of keys, whole or not at all."""

import itertools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from mslt_tf.data.building import external_sort

KeyRange = external_sort.KeyRange


def _write(path, records: dict[int, bytes], facts=None) -> str:
  keys = sorted(records)
  with external_sort.Writer(str(path)) as writer:
    # In pieces, as a task writes them.
    for piece in (keys[:5], keys[5:]):
      contents = [records[key] for key in piece]
      writer.add(
        b"".join(contents), np.array([len(each) for each in contents], int)
      )
    writer.finish(np.array(keys, np.uint64), facts or {})
  return str(path)


def _random_records(seed: int, number: int) -> dict[int, bytes]:
  rng = np.random.default_rng(seed)
  keys = rng.integers(2**64, size=number, dtype=np.uint64).tolist()
  return {key: b"%d" % (key % 10 ** int(rng.integers(1, 19))) for key in keys}


@pytest.fixture(scope="module")
def records() -> list[dict[int, bytes]]:
  # A file of several blocks of the index, a small one, an empty one.
  return [_random_records(1, 1700), _random_records(2, 7), {}]


@pytest.fixture(scope="module")
def files(records, tmp_path_factory) -> list[external_sort.SortedFile]:
  directory = tmp_path_factory.mktemp("sorted")
  return external_sort.open_all(
    [
      _write(directory / str(index), each, {"index": index})
      for index, each in enumerate(records)
    ]
  )


def test_a_range_has_the_records_of_all_files_in_order_of_their_keys(
  files, records
):
  together = {key: each for file in records for key, each in file.items()}
  known = sorted(together)
  # Ranges that begin and end at keys, beside them, and at borders of blocks.
  ends = [0, 1, known[3], known[3] + 1, known[511], known[512], known[900]]
  ends += [known[-1], known[-1] + 1, 1 << 64]
  for start, end in itertools.combinations(ends, 2):
    keys, found = external_sort.read(files, KeyRange(start, end))
    expected = [key for key in known if start <= key < end]
    assert keys.tolist() == expected
    assert [bytes(each) for each in found] == [
      together[key] for key in expected
    ]


def test_a_range_tells_its_size(files, records):
  keys = KeyRange(1 << 60, 1 << 63)
  expected = sum(
    len(content)
    for key, content in records[0].items()
    if keys.start <= key < keys.end
  )
  assert files[0].entries(keys).num_bytes == expected
  assert files[2].entries(keys).num_bytes == 0


def test_facts_come_back(files):
  assert [file.facts() for file in files] == [
    {"index": 0},
    {"index": 1},
    {"index": 2},
  ]


def test_equal_keys_come_in_the_order_of_the_files(tmp_path):
  paths = [
    _write(tmp_path / "a", {5: b"first", 9: b"last"}),
    _write(tmp_path / "b", {5: b"second"}),
  ]
  _, found = external_sort.read(
    external_sort.open_all(paths), external_sort.ALL_KEYS
  )
  assert [bytes(each) for each in found] == [b"first", b"second", b"last"]


@pytest.mark.parametrize("part_bytes", [1, 100, 3001, 10**9])
def test_a_range_comes_in_parts_as_it_does_at_once(files, part_bytes):
  keys = KeyRange(1 << 60, 1 << 63)
  expected = [bytes(each) for each in external_sort.read(files, keys)[1]]
  found = list(external_sort.iterate(files, keys, part_bytes))
  assert [bytes(each) for each in found] == expected
  # Those of one part of a file are of one piece of memory.
  pieces = {id(each.obj): len(each.obj) for each in found}
  assert max(pieces.values()) < 1.3 * part_bytes + 100


def test_ranges_read_little_more_than_they_hold(tmp_path):
  rng = np.random.default_rng(6)
  keys = rng.integers(2**64, size=(20, 100), dtype=np.uint64).tolist()
  paths = [
    _write(tmp_path / str(index), dict.fromkeys(some, bytes(1000)))
    for index, some in enumerate(keys)
  ]
  before = _bytes_read()
  files = external_sort.open_all(paths)
  ranges = external_sort.equal_ranges(files, 8)
  for each in ranges:
    assert sum(map(len, external_sort.iterate(files, each, 100_000))) == 250_000
  # The records, 2 MB, and some 300 times a page of 4 kB.
  assert _bytes_read() - before < 4_000_000


def _bytes_read() -> int:
  """Returns what this process has read with system calls."""
  lines = pathlib.Path("/proc/self/io").read_text().splitlines()
  return int(dict(line.split(": ") for line in lines)["rchar"])


@pytest.mark.parametrize("num_parts", [1, 2, 7, 1707])
def test_equal_ranges_cover_all_keys_and_hold_as_many_records(files, num_parts):
  ranges = external_sort.equal_ranges(files, num_parts)
  assert ranges[0].start == 0 and ranges[-1].end == 1 << 64
  for before, after in itertools.pairwise(ranges):
    assert before.end == after.start
  sizes = {len(external_sort.read(files, keys)[0]) for keys in ranges}
  assert sizes <= {1707 // num_parts, 1707 // num_parts + 1}


def test_a_range_is_split_to_the_last_key():
  parts = external_sort.ALL_KEYS.split(3)
  assert [(part.start, part.end) for part in parts] == [
    (0, 6148914691236517205),
    (6148914691236517205, 12297829382473034410),
    (12297829382473034410, 18446744073709551616),
  ]


def test_what_fails_leaves_no_file(tmp_path):
  path = tmp_path / "sorted"
  with pytest.raises(RuntimeError), external_sort.Writer(str(path)) as writer:
    writer.add(b"a", np.array([1]))
    raise RuntimeError
  assert list(tmp_path.iterdir()) == []


def test_what_gets_its_name_is_on_disk(tmp_path, monkeypatch):
  done = []
  sync, rename = os.fsync, tf.io.gfile.rename

  def recorded_sync(descriptor):
    done.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
    sync(descriptor)

  def recorded_rename(source, target, overwrite=False):
    done.append(("rename", source))
    rename(source, target, overwrite)

  monkeypatch.setattr(os, "fsync", recorded_sync)
  monkeypatch.setattr(tf.io.gfile, "rename", recorded_rename)
  _write(tmp_path / "sorted", {5: b"five"})
  (piece,) = {path for what, path in done if what == "rename"}
  assert done == [("sync", piece), ("rename", piece), ("sync", str(tmp_path))]


def test_a_file_of_another_kind_is_no_sorted_file(tmp_path):
  path = tmp_path / "other"
  path.write_bytes(b"x" * 100)
  with pytest.raises(ValueError, match="is not a sorted file"):
    external_sort.SortedFile(str(path))
