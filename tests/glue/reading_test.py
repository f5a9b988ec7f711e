"""Files as GLUE's download unpacks them are read, each with its traps."""

import gzip
import re

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf.glue import reading
from mslt_tf.glue import tasks

BOM = "\ufeff"
MNLI_START = (
  "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse"
  "\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
  "\tsentence1\tsentence2"
)
MNLI_ROW = "0\t1\t1e\tfiction\t( a )\t( b )\t(A a)\t(B b)"

# By the path: the file, and the first texts, second texts and labels in it.
FILES = {
  "CoLA/train.tsv": (
    'gj04\t1\t\t"It ran.\nbc01\t0\t*\tRan it."\n',
    (['"It ran.', 'Ran it."'], None, [1, 0]),
  ),
  "CoLA/test.tsv": (
    "index\tsentence\n0\tBill ran.\n1\tRan Bill.\n",
    (["Bill ran.", "Ran Bill."], None, None),
  ),
  "SST-2/dev.tsv": (
    "sentence\tlabel\nsome \t0\nmore \t1\n",
    (["some ", "more "], None, [0, 1]),
  ),
  "SST-2/test.tsv": ("index\tsentence\n0\tsome\n", (["some"], None, None)),
  "MRPC/dev.tsv": (
    f"{BOM}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n"
    '1\t12\t13\t" a "\tb "\r\n0\t14\t15\tc\td\r\n',
    (['" a "', "c"], ['b "', "d"], [1, 0]),
  ),
  "MRPC/test.tsv": (
    "index\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t12\t13\ta\tb\n",
    (["a"], ["b"], None),
  ),
  "STS-B/dev.tsv": (
    "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1"
    "\tsentence2\tscore\n"
    "0\tnews\tx\t2012\t0\tnone\tnone\ta\tb\t3.25\n",
    (["a"], ["b"], [3.25]),
  ),
  "QQP/train.tsv": (
    "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    "7\t1\t2\ta\tb\t0\n8\t3\t4\tbroken\n9\t5\t6\tc\t\t1\n",
    (["a", "c"], ["b", ""], [0, 1]),
  ),
  "QQP/test.tsv": (
    "id\tquestion1\tquestion2\n0\ta\tb\n",
    (["a"], ["b"], None),
  ),
  "MNLI/train.tsv": (
    f"{MNLI_START}\tlabel1\tgold_label\n"
    f"{MNLI_ROW}\ta\tb\tneutral\tneutral\n"
    f"{MNLI_ROW}\tc\td\tneutral\t-\n"
    f"{MNLI_ROW}\te\tf\tneutral\tcontradiction\n",
    (["a", "e"], ["b", "f"], [1, 2]),
  ),
  "MNLI/dev_mismatched.tsv": (
    f"{MNLI_START}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"
    f"{MNLI_ROW}\ta\tb" + "\tneutral" * 5 + "\tentailment\n",
    (["a"], ["b"], [0]),
  ),
  "MNLI/test_matched.tsv": (
    f"{MNLI_START}\n{MNLI_ROW}\ta\tb\n",
    (["a"], ["b"], None),
  ),
  "QNLI/dev.tsv": (
    "index\tquestion\tsentence\tlabel\n0\ta\tb\tnot_entailment\n",
    (["a"], ["b"], [1]),
  ),
  "RTE/dev.tsv": (
    "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n",
    (["a"], ["b"], [0]),
  ),
  "WNLI/train.tsv": (
    "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n",
    (["a"], ["b"], [1]),
  ),
  "diagnostic/diagnostic.tsv": (
    "index\tsentence1\tsentence2\n0\ta\tb\n",
    (["a"], ["b"], None),
  ),
  "AX/AX.tsv": (
    "index\tsentence1\tsentence2\n0\tc\td\n",
    (["c"], ["d"], None),
  ),
}

MRPC_HEADER = f"{BOM}Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def write(folder, path, content):
  file = folder / path
  file.parent.mkdir(exist_ok=True)
  file.write_text(content, newline="")


def find(path):
  """Returns the task and split whose file this is."""
  ((task, split),) = [
    (task, split)
    for task in tasks.GLUE.values()
    for split in task.splits
    if path in split.paths
  ]
  return task, split


def read(folder, task_name, split_name):
  task = tasks.get(task_name)
  return reading.read(task, task.split(split_name), str(folder))


@pytest.mark.parametrize("path", FILES)
def test_file_of_the_official_layout(tmp_path, path):
  content, (first, second, labels) = FILES[path]
  write(tmp_path, path, content)
  task, split = find(path)
  found = reading.read(task, split, str(tmp_path))
  assert found.first == first
  assert found.second == second
  if labels is None:
    assert found.labels is None
  else:
    np.testing.assert_array_equal(found.labels, labels)
  assert reading.is_there(task, split, str(tmp_path))


def test_what_was_left_out_is_counted(tmp_path):
  for path in ("QQP/train.tsv", "MNLI/train.tsv"):
    write(tmp_path, path, FILES[path][0])
  assert read(tmp_path, "qqp", "train").dropped == {"too few fields": 1}
  assert read(tmp_path, "mnli", "train").dropped == {"label '-'": 1}


@pytest.fixture
def original_mrpc(tmp_path):
  """Microsoft's files, and the ids of GLUE's dev set."""
  write(
    tmp_path,
    "MRPC/msr_paraphrase_train.txt",
    MRPC_HEADER + "1\t11\t12\ta\tb\n0\t12\t11\tc\td\n1\t13\t14\te\tf\n",
  )
  write(
    tmp_path, "MRPC/msr_paraphrase_test.txt", MRPC_HEADER + "1\t21\t22\tg\th\n"
  )
  write(tmp_path, "MRPC/dev_ids.tsv", "13\t14\n12\t11\n")
  return tmp_path


@pytest.mark.parametrize(
  ("split_name", "expected"),
  [
    ("train", (["a"], ["b"], [1])),
    ("dev", (["c", "e"], ["d", "f"], [0, 1])),
    ("test", (["g"], ["h"], None)),
  ],
)
def test_mrpc_in_its_original_form(original_mrpc, split_name, expected):
  task = tasks.get("mrpc")
  split = task.split(split_name)
  assert reading.is_there(task, split, str(original_mrpc))
  assert not reading.is_there(task, split, "/nowhere")
  found = read(original_mrpc, "mrpc", split_name)
  labels = None if found.labels is None else found.labels.tolist()
  assert (found.first, found.second, labels) == expected


def test_mrpc_without_the_ids_of_its_dev_set(original_mrpc):
  (original_mrpc / "MRPC/dev_ids.tsv").unlink()
  with pytest.raises(errors.InputError, match=r"has no MRPC/dev_ids\.tsv or "):
    read(original_mrpc, "mrpc", "train")


def test_compressed_file(tmp_path):
  (tmp_path / "RTE").mkdir()
  content = FILES["RTE/dev.tsv"][0].encode()
  (tmp_path / "RTE/dev.tsv").write_bytes(gzip.compress(content))
  assert read(tmp_path, "rte", "dev").first == ["a"]


def test_labels_are_counted_as_they_are_written(tmp_path):
  write(tmp_path, "MNLI/train.tsv", FILES["MNLI/train.tsv"][0])
  split = tasks.get("mnli").split("train")
  path = str(tmp_path / "MNLI/train.tsv")
  assert reading.label_strings(split, path) == {
    "neutral": 1,
    "-": 1,
    "contradiction": 1,
  }


@pytest.mark.parametrize(
  ("path", "content", "message"),
  [
    ("RTE/dev.tsv", None, "data_dir='{0}' has no RTE/dev.tsv, which task rte"),
    (
      "diagnostic/diagnostic.tsv",
      None,
      "no diagnostic/diagnostic.tsv or AX/AX",
    ),
    ("MRPC/train.tsv", None, "no MRPC/train.tsv or MRPC/msr_paraphrase_train"),
    ("RTE/dev.tsv", "", "{0}/RTE/dev.tsv, line 1: no column 'sentence1'"),
    (
      "RTE/dev.tsv",
      "index\tsentence1\tsentence2\tlabel\n",
      "{0}/RTE/dev.tsv has no examples.",
    ),
    (
      "RTE/dev.tsv",
      "index\tsentence1\tsentence2\tgold\n0\ta\tb\tentailment\n",
      "{0}/RTE/dev.tsv, line 1: no column 'label'; the header has 'index', ",
    ),
    (
      "RTE/dev.tsv",
      "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n1\ta\n",
      "{0}/RTE/dev.tsv, line 3: 2 fields, but column 4 is needed.",
    ),
    (
      "RTE/dev.tsv",
      "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n",
      "{0}/RTE/dev.tsv, line 2: label '1' is unknown; task rte has ",
    ),
    (
      "CoLA/dev.tsv",
      "source\tlabel\tmark\tsentence\ngj04\t1\t\tIt ran.\n",
      "{0}/CoLA/dev.tsv, line 1: label 'label' is unknown; task cola has ",
    ),
  ],
)
def test_what_is_wrong_is_one_line(tmp_path, path, content, message):
  if content is not None:
    write(tmp_path, path, content)
  with pytest.raises(
    errors.InputError, match=re.escape(message.format(tmp_path))
  ) as caught:
    reading.read(*find(path), str(tmp_path))
  assert "\n" not in str(caught.value)
