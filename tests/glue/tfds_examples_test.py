"""GLUE as TensorFlow Datasets prepares it gives what the files give."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mslt_tf import errors
from mslt_tf.glue import reading
from mslt_tf.glue import tasks

NUM_EXAMPLES = 23

with tfds.core.registered.skip_registration():

  class LittleGlue(tfds.core.GeneratorBasedBuilder):
    """A little of GLUE in the form of the real one."""

    # TFDS looks for resources of a package, and the tests are none.
    __module__ = "__main__"

    name = "glue"
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = tuple(
      tfds.core.BuilderConfig(name=name) for name in ("cola", "mnli", "stsb")
    )

    def _info(self):
      label = {
        "cola": tfds.features.ClassLabel(names=["unacceptable", "acceptable"]),
        "mnli": tfds.features.ClassLabel(
          names=["entailment", "neutral", "contradiction"]
        ),
        "stsb": np.float32,
      }[self.builder_config.name]
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {
            **dict.fromkeys(self._texts(), tfds.features.Text()),
            "label": label,
            "idx": np.int32,
          }
        ),
      )

    def _texts(self):
      return {
        "cola": ("sentence",),
        "mnli": ("hypothesis", "premise"),
        "stsb": ("sentence1", "sentence2"),
      }[self.builder_config.name]

    def _split_generators(self, dl_manager):
      del dl_manager
      if self.builder_config.name == "mnli":
        return {
          "train": self._examples(1),
          "test_mismatched": self._examples(-1),
        }
      return {"train": self._examples(1), "validation": self._examples(0)}

    def _generate_examples(self, label):
      return self._examples(label)

    def _examples(self, label):
      for index in range(NUM_EXAMPLES):
        texts = {name: f"{name} {index} ü" for name in self._texts()}
        yield index, {**texts, "label": label, "idx": index}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
  directory = str(tmp_path_factory.mktemp("tfds"))
  for config in ("cola", "mnli", "stsb"):
    LittleGlue(config=config, data_dir=directory).download_and_prepare(
      download_config=tfds.download.DownloadConfig(num_shards=2)
    )
  return f"tfds:{directory}"


def read(data_dir, task_name, split_name):
  task = tasks.get(task_name)
  return reading.read(task, task.split(split_name), data_dir)


def test_single_sentences_in_the_order_of_the_file(data_dir):
  found = read(data_dir, "cola", "train")
  assert found.first == [f"sentence {n} ü" for n in range(NUM_EXAMPLES)]
  assert found.second is None
  np.testing.assert_array_equal(found.labels, [1] * NUM_EXAMPLES)
  assert found.labels.dtype == np.int32


def test_premise_comes_first(data_dir):
  found = read(data_dir, "mnli", "train")
  assert found.first[7] == "premise 7 ü"
  assert found.second[7] == "hypothesis 7 ü"


def test_labels_of_a_regression(data_dir):
  found = read(data_dir, "stsb", "dev")
  assert found.second[3] == "sentence2 3 ü"
  np.testing.assert_array_equal(found.labels, np.zeros(NUM_EXAMPLES))
  assert found.labels.dtype == np.float32


def test_test_sets_have_no_labels(data_dir):
  assert read(data_dir, "mnli", "test_mismatched").labels is None


def test_a_task_that_is_not_prepared_is_one_line(data_dir):
  with pytest.raises(
    errors.InputError, match="'tfds:glue/rte@validation' does not lie prepared"
  ) as caught:
    read(data_dir, "rte", "dev")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "expected"), [("cola", True), ("rte", False)])
def test_it_tells_what_is_prepared(data_dir, name, expected):
  task = tasks.get(name)
  assert reading.is_there(task, task.split("train"), data_dir) is expected


@pytest.mark.parametrize("task", tasks.GLUE.values())
def test_labels_of_the_real_one_have_our_order(task):
  """A label of its files, or its place, is what a class id means."""
  builder = tfds.builder_cls("glue")
  (config,) = [c for c in builder.BUILDER_CONFIGS if c.name == task.name]
  theirs = tuple(config.label_classes or ())
  if task.labels == ("0", "1"):
    assert len(theirs) == 2
  else:
    assert theirs == task.labels
