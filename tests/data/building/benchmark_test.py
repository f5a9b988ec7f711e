"""The benchmark of the data build measures what it says."""

import pytest

from mslt_tf.data.building import benchmark
from mslt_tf.data.reading import manifest


def _measured(seconds, num_examples, *, tokens=None, peak=0):
  return benchmark.Measured(
    seconds=seconds,
    num_examples=num_examples,
    num_tokens=tokens,
    memory_before_bytes=1,
    peak_memory_bytes=peak,
  )


def test_the_summary_has_medians_and_pairs_neighbours():
  ours = [
    _measured(2.0, 200, tokens=50, peak=10),  # 100 a second
    _measured(1.0, 300, tokens=50, peak=30),  # 300
    _measured(4.0, 800, tokens=50, peak=20),  # 200
  ]
  theirs = [_measured(10.0, 200), _measured(1.0, 10), _measured(1.0, 10)]
  large = _measured(9.0, 9, tokens=9, peak=22)
  assert benchmark._summary(ours, theirs, large) == {
    "examples_per_second": 200,
    "tokens_per_second": 25,
    "speedup_over_model_garden": 20,  # of 5, 30 and 20
    "peak_memory_bytes": 22,
    "memory_growth_at_20x": 1.1,
  }


def test_copies_are_other_documents_of_the_same_sentences():
  texts = ["a\nb\nc\nd\ne\nf", "g"]
  copies = list(benchmark._copies(texts, 3))
  assert len(copies) == 6
  assert {tuple(sorted(copy.split("\n"))) for copy in copies} == {
    ("a", "b", "c", "d", "e", "f"),
    ("g",),
  }
  assert len(set(copies[::2])) == 3


@pytest.mark.slow
def test_both_programs_run_and_make_like_numbers_of_examples(
  text_file, vocab_file, tmp_path
):
  result = benchmark.run(
    [text_file],
    vocab_path=vocab_file,
    vocab_size=0,
    dupe_factor=2,
    num_repeats=1,
    directory=str(tmp_path),
  )
  (ours,), (theirs,) = result["ours"], result["model_garden"]
  made = manifest.load(str(tmp_path / "ours-0"))
  assert ours["num_examples"] == sum(
    split["num_examples"] for split in made["splits"].values()
  )
  assert ours["num_examples"] == pytest.approx(theirs["num_examples"], rel=0.4)
  large = result["ours_at_20x"]
  assert large["num_tokens"] == 20 * ours["num_tokens"]
  for each in (ours, theirs, large):
    # TensorFlow alone has 300 MB.
    assert 2e8 < each["memory_before_bytes"] <= each["peak_memory_bytes"]
  assert "speedup" in benchmark.summary(result)
