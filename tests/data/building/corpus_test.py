"""The corpus on disk: documents in the order of their hashes."""

from mslt_tf.data.building import corpus
from mslt_tf.data.building import external_sort
from mslt_tf.data.building import processes
from mslt_tf.data.text import documents


def _read(directory, text: str, **kwargs) -> tuple[list[str], dict]:
  (directory / "text.txt").write_text(text)
  with processes.start(1) as one:
    paths, dropped = corpus.read(
      documents.find([str(directory / "text.txt")], tfds_data_dir=None),
      str(directory),
      processes=one,
      **(
        dict(input_format="sentences", text_field="text", min_words=0) | kwargs
      ),
    )
  return paths, dict(dropped)


def _texts(paths) -> list[bytes]:
  files = external_sort.open_all(paths)
  return corpus.texts(files, external_sort.ALL_KEYS)


def test_documents_are_in_the_order_of_their_hashes(tmp_path):
  paths, _ = _read(tmp_path, "b one .\nb two .\n\na one .\n\nc .\n\na one .\n")
  found = _texts(paths)
  assert sorted(found) == [b"a one .", b"a one .", b"b one .\nb two .", b"c ."]
  keys = [corpus.key_of(text) for text in found]
  assert keys == sorted(keys)
  assert corpus.of_files(paths).keys.tolist() == sorted(set(keys))


def test_a_key_is_the_beginning_of_the_sha256():
  # printf abc | sha256sum
  assert corpus.key_of(b"abc") == 0xBA7816BF8F01CFEA


def test_short_documents_are_dropped_and_counted(tmp_path):
  paths, dropped = _read(
    tmp_path, "one two\nthree\n\none two\n\none\n", min_words=3
  )
  assert _texts(paths) == [b"one two\nthree"]
  assert dropped["short_documents"] == 2


def test_what_was_read_is_not_read_again(tmp_path):
  paths, _ = _read(tmp_path, "a\n\nb\n")
  with open(paths[0], "rb") as file:
    content = file.read()
  # The same name stands for the same text: who changes it has other arguments.
  assert _read(tmp_path, "c\n\nd\n")[0] == paths
  with open(paths[0], "rb") as file:
    assert file.read() == content


def test_the_size_of_tasks_changes_nothing(tmp_path, monkeypatch):
  text = "\n\n".join(f"d{index} one .\ntwo ." for index in range(60)) + "\n\nx"
  monkeypatch.setattr(corpus, "_LEAST_CHUNK_BYTES", 50)
  monkeypatch.setattr(corpus, "CHUNK_BYTES", 50)
  monkeypatch.setattr(corpus, "_TASKS", 1)
  found = []
  for num_bytes in (200, 450, 10**6):
    monkeypatch.setattr(corpus, "_MOST_TASK_BYTES", num_bytes)
    directory = tmp_path / str(num_bytes)
    directory.mkdir()
    paths, dropped = _read(directory, text, min_words=2)
    read = corpus.of_files(paths)
    found.append(
      (_texts(paths), dropped, read.keys.tolist(), read.num_bytes.tolist())
    )
    # Documents of 15 and 16 bytes, and a blank line after each.
    assert abs(len(paths) - 1060 / num_bytes) < 2
  assert found[0] == found[1] == found[2]
  assert len(found[0][0]) == 60 and found[0][1] == {"short_documents": 1}


def test_words_of_a_range_are_counted(tmp_path):
  paths, _ = _read(tmp_path, "The dog.\nThe Cat\n\nthe end\n\nthe end\n")
  for remove_duplicates, number in ((False, 2), (True, 1)):
    words = corpus.count_words(
      corpus.Words(
        tuple(paths),
        external_sort.ALL_KEYS,
        lower_case=True,
        remove_duplicates=remove_duplicates,
      )
    )
    expected = {"the": 2 + number, "dog": 1, ".": 1, "cat": 1, "end": number}
    assert words == expected
