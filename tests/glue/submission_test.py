"""A submission has the form that the GLUE server takes, or is refused."""

import io
import re
import warnings
import zipfile

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.glue import submission

NUM_ROWS = {
  "CoLA.tsv": 1063,
  "SST-2.tsv": 1821,
  "MRPC.tsv": 1725,
  "STS-B.tsv": 1379,
  "QQP.tsv": 390965,
  "MNLI-m.tsv": 9796,
  "MNLI-mm.tsv": 9847,
  "QNLI.tsv": 5463,
  "RTE.tsv": 3000,
  "WNLI.tsv": 146,
  "AX.tsv": 1104,
}
FEW_ROWS = dict.fromkeys(NUM_ROWS, 3)


@pytest.fixture(scope="module")
def whole():
  """The contents of a submission that is right."""
  return submission.files(
    {name: np.zeros(count, np.int32) for name, count in NUM_ROWS.items()}
  )


@pytest.fixture
def few():
  """One of three rows a file, for `num_rows=FEW_ROWS`."""
  return submission.files({name: np.array([0, 1, 1]) for name in FEW_ROWS})


def packed(contents):
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    for name, content in contents.items():
      archive.writestr(name, content)
  return file.getvalue()


def test_files_hold_an_index_and_a_label_string():
  assert submission.files(
    {
      "CoLA.tsv": [1, 0],
      "MNLI-mm.tsv": np.array([2, 0, 1]),
      "QNLI.tsv": [1, 0],
      "RTE.tsv": [0],
      "WNLI.tsv": [1],
      "AX.tsv": [1],
    }
  ) == {
    "CoLA.tsv": b"index\tprediction\n0\t1\n1\t0\n",
    "MNLI-mm.tsv": (
      b"index\tprediction\n0\tcontradiction\n1\tentailment\n2\tneutral\n"
    ),
    "QNLI.tsv": b"index\tprediction\n0\tnot_entailment\n1\tentailment\n",
    "RTE.tsv": b"index\tprediction\n0\tentailment\n",
    "WNLI.tsv": b"index\tprediction\n0\t1\n",
    "AX.tsv": b"index\tprediction\n0\tneutral\n",
  }


def test_similarities_are_clipped():
  assert submission.files({"STS-B.tsv": [-0.25, 5.5, 3.14159]}) == {
    "STS-B.tsv": b"index\tprediction\n0\t0.000\n1\t5.000\n2\t3.142\n"
  }


def test_majority_is_the_most_frequent_class():
  predicted = submission.majority(np.array([1, 0, 1]), 4)
  np.testing.assert_array_equal(predicted, [1, 1, 1, 1])


@pytest.mark.parametrize(
  ("predictions", "message"),
  [
    ({"COLA.tsv": [0]}, "COLA.tsv is no file of a submission; these are MNLI"),
    ({"CoLA.tsv": [0, 2]}, "CoLA.tsv: class 2 must be from 0 to 1"),
    ({"CoLA.tsv": [0.5]}, "CoLA.tsv: class 0.5 must be from 0 to 1"),
    ({"CoLA.tsv": [[0]]}, r"CoLA.tsv: predictions of shape \(1, 1\) must be"),
    ({"STS-B.tsv": [1, np.nan]}, "STS-B.tsv: a prediction is not finite"),
  ],
)
def test_predictions_that_cannot_be_are_named(predictions, message):
  with pytest.raises(errors.InputError, match=message):
    submission.files(predictions)


def test_a_whole_submission_is_zipped_and_accepted(tmp_path, whole):
  path = str(tmp_path / "s.zip")
  submission.write_zip(path, whole)
  submission.check(path)
  with zipfile.ZipFile(path) as archive:
    assert sorted(archive.namelist()) == sorted(NUM_ROWS)
    assert archive.read("WNLI.tsv") == whole["WNLI.tsv"]


def test_a_directory_with_its_zip_is_accepted(tmp_path, whole):
  submission.write_files(str(tmp_path), whole)
  submission.write_zip(str(tmp_path / "s.zip"), whole)
  submission.check(str(tmp_path))


def test_an_unfinished_submission_is_not_zipped(tmp_path, few):
  del few["AX.tsv"]
  path = tmp_path / "s.zip"
  with pytest.raises(
    errors.InputError, match=r"s.zip would be refused:\nAX.tsv"
  ):
    submission.write_zip(str(path), few, FEW_ROWS)
  assert not path.exists()


def test_given_test_files_say_how_many_rows_there_must_be(tmp_path, whole):
  (tmp_path / "RTE").mkdir()
  (tmp_path / "RTE/test.tsv").write_text(
    "index\tsentence1\tsentence2\n0\ta\tb\n1\tc\td\n"
  )
  path = str(tmp_path / "s.zip")
  submission.write_zip(path, whole)
  with pytest.raises(
    errors.InputError, match=r":\nRTE\.tsv: 3,000 rows, where 2 are needed\.$"
  ):
    submission.check(path, str(tmp_path))


def test_official_counts_are_needed(few):
  lines = submission.problems(few)
  assert sorted(lines) == sorted(
    f"{name}: 3 rows, where {count:,} are needed."
    for name, count in NUM_ROWS.items()
  )


def test_a_right_one_has_no_problems(few):
  assert submission.problems(few, FEW_ROWS) == []


@pytest.mark.parametrize(
  ("name", "content", "lines"),
  [
    ("RTE.tsv", None, ["RTE.tsv: missing."]),
    (
      "RTE.tsv",
      b"",
      [
        "RTE.tsv, line 1: '' must be 'index\\tprediction'.",
        "RTE.tsv: 0 rows, where 3 are needed.",
      ],
    ),
    (
      "RTE.tsv",
      b"0\tentailment\n1\tentailment\n2\tentailment\n",
      [
        "RTE.tsv, line 1: '0\\tentailment' must be 'index\\tprediction'.",
        "RTE.tsv: 2 rows, where 3 are needed.",
        "RTE.tsv, line 2: index '1' must be 0.",
      ],
    ),
    (
      "RTE.tsv",
      b"index,prediction\n0\tentailment\n1\tentailment\n2\tentailment\n",
      ["RTE.tsv, line 1: 'index,prediction' must be 'index\\tprediction'."],
    ),
    (
      "RTE.tsv",
      b"index\tprediction\n0\tentailment\n2\tentailment\n1\tentailment\n",
      ["RTE.tsv, line 3: index '2' must be 1."],
    ),
    (
      "RTE.tsv",
      b"index\tprediction\n1\tentailment\n2\tentailment\n3\tentailment\n",
      ["RTE.tsv, line 2: index '1' must be 0."],
    ),
    (
      "RTE.tsv",
      b"index\tprediction\n0\tentailment\n1\t1\n2\tneutral\n",
      [
        "RTE.tsv, line 3: prediction '1' must be entailment or not_entailment"
        " (1 more like it)."
      ],
    ),
    (
      "CoLA.tsv",
      b"index\tprediction\n0\t1\n1\t1.0\n2\t0\n",
      ["CoLA.tsv, line 3: prediction '1.0' must be 0 or 1."],
    ),
    (
      "CoLA.tsv",
      b"index\tprediction\n0\t1\n1\n2\t0\n",
      ["CoLA.tsv, line 3: 1 fields, where 2 are needed."],
    ),
    (
      "CoLA.tsv",
      b"index\tprediction\n0\t1\n\n1\t0\n2\t0\n",
      [
        "CoLA.tsv: 4 rows, where 3 are needed.",
        "CoLA.tsv, line 3: 1 fields, where 2 are needed.",
      ],
    ),
    (
      "CoLA.tsv",
      b"index\tprediction\r\n0\t1\r\n1\t1\r\n2\t0\r\n",
      [
        "CoLA.tsv, line 1: 'index\\tprediction\\r' must be"
        " 'index\\tprediction'.",
        "CoLA.tsv, line 2: prediction '1\\r' must be 0 or 1 (2 more like it).",
      ],
    ),
    (
      "STS-B.tsv",
      b"index\tprediction\n0\t5.001\n1\tfour\n2\tnan\n",
      [
        "STS-B.tsv, line 2: prediction '5.001' must be a number from 0 to 5"
        " (2 more like it)."
      ],
    ),
    ("STS-B.tsv", b"\xff\xfe", ["STS-B.tsv: not UTF-8."]),
    ("notes.txt", b"", ["notes.txt: no file of a submission."]),
  ],
)
def test_a_malformed_file_is_told_a_line_each(
  tmp_path, few, name, content, lines
):
  if content is None:
    del few[name]
  else:
    few[name] = content
  assert submission.problems(few, FEW_ROWS) == lines
  path = tmp_path / "s.zip"
  path.write_bytes(packed(few))
  with pytest.raises(
    errors.InputError, match=r"s.zip would be refused:\n"
  ) as caught:
    submission.check(str(path))
  assert set(lines) - {each for each in lines if "rows" in each} <= set(
    str(caught.value).split("\n")
  )


def test_a_folder_in_the_zip_is_refused(tmp_path, whole):
  path = tmp_path / "s.zip"
  path.write_bytes(
    packed({f"out/{name}": each for name, each in whole.items()})
  )
  with pytest.raises(
    errors.InputError, match="\nout: a folder, where files alone are taken"
  ):
    submission.check(str(path))


def test_a_file_that_is_twice_in_the_zip_is_refused(tmp_path, whole):
  path = tmp_path / "s.zip"
  submission.write_zip(str(path), whole)
  with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    archive.writestr("RTE.tsv", whole["RTE.tsv"])
  with pytest.raises(
    errors.InputError, match=r"refused:\nRTE\.tsv: is there 2 times\.$"
  ):
    submission.check(str(path))


def test_a_damaged_zip_is_refused(tmp_path, whole):
  path = tmp_path / "s.zip"
  submission.write_zip(str(path), whole)
  content = bytearray(path.read_bytes())
  content[200:260] = bytes(60)
  path.write_bytes(content)
  with pytest.raises(errors.InputError, match=r"s\.zip is no zip file: "):
    submission.check(str(path))


def test_a_folder_in_the_directory_is_refused(tmp_path, whole):
  submission.write_files(str(tmp_path), whole)
  (tmp_path / "MNLI").mkdir()
  with pytest.raises(
    errors.InputError,
    match=r"refused:\nMNLI: a folder, where files alone are taken\.$",
  ):
    submission.check(str(tmp_path))


@pytest.mark.parametrize(
  ("content", "message"),
  [(b"index", "s.zip is no zip file"), (None, "submission .* cannot be read")],
)
def test_what_is_no_submission_is_refused(tmp_path, content, message):
  path = tmp_path / "s.zip"
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(errors.InputError, match=message) as caught:
    submission.check(str(path))
  assert not re.search("\n", str(caught.value))
