"""What a data set holds, in lines for a person."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from mslt_tf.data.examples import vocabulary
from mslt_tf.data.reading import manifest
from mslt_tf.data.verification import example_batch
from mslt_tf.data.verification import example_counts

_LINE_WIDTH = 98


def table(
  data: manifest.Data,
  train: example_counts.Counts,
  heldout: example_counts.Counts,
) -> list[str]:
  """Returns the statistics, a line each, a column a split."""
  lines = [f"{'':28}{'train':>15}{'heldout':>13}"]
  for (name, of_train, note), (_, of_heldout, _) in zip(
    _statistics(data.train, train, data),
    _statistics(data.heldout, heldout, data),
    strict=True,
  ):
    lines.append(f"{name:28}{of_train:>15}{of_heldout:>13}   {note}".rstrip())
  return lines


def _statistics(
  split: manifest.Split, counts: example_counts.Counts, data: manifest.Data
) -> list[tuple[str, str, str]]:
  """Returns the name, value and note of each statistic of a split."""
  num_examples, num_predictions = counts.num_examples, counts.num_predictions
  num_bytes = sum(shard.index.num_bytes for shard in split.shards)
  room = num_examples * data.sequence_length
  return [
    ("shards", f"{len(split.shards):,}", ""),
    ("size", f"{num_bytes / 1e6:,.1f}", "MB"),
    ("documents", f"{split.num_documents:,}", ""),
    ("sentences", f"{split.num_sentences:,}", ""),
    ("tokens", f"{split.num_tokens:,}", "of the text"),
    ("examples", f"{num_examples:,}", ""),
    (
      "tokens an example",
      f"{counts.num_tokens / num_examples:.1f}",
      f"with [CLS] and [SEP]; at most {data.sequence_length}",
    ),
    ("padding", f"{1 - counts.num_tokens / room:.2%}", ""),
    (
      "short examples",
      f"{counts.num_short / num_examples:.2%}",
      f"fewer than {data.sequence_length} tokens",
    ),
    (
      "[UNK]",
      f"{counts.num_unknown / counts.num_tokens:.3%}",
      "of the tokens of the examples",
    ),
    (
      "random nexts",
      f"{counts.num_random_nexts / num_examples:.2%}",
      "about half of the examples or more",
    ),
    (
      "predictions an example",
      f"{num_predictions / num_examples:.2f}",
      f"at most {data.max_predictions}",
    ),
    (
      "  hidden by [MASK]",
      f"{counts.num_hidden / num_predictions:.2%}",
      "of the predictions",
    ),
    (
      "  behind a random token",
      f"{counts.num_replaced / num_predictions:.2%}",
      "",
    ),
    ("  not hidden", f"{counts.num_kept / num_predictions:.2%}", ""),
  ]


def facts(data: manifest.Data, description: Mapping) -> list[str]:
  """Returns lines of what concerns all of the data.

  Args:
    data: the data set.
    description: its manifest, as it is written.
  """
  dropped = [
    f"{count:,} {name.replace('_', ' ')}"
    for name, count in description.get("dropped", {}).items()
  ]
  arguments = [
    f"{name}={_short(value) if name.endswith('sha256') else value}"
    for name, value in description["arguments"].items()
  ]
  case = "lower-case" if data.lower_case else "cased"
  return [
    *_wrapped(
      "vocabulary",
      f"{data.vocab_size:,} {case} tokens, sha256={_short(data.vocab_sha256)}",
    ),
    *_wrapped(
      "unigram MLM loss",
      f"{data.unigram_mlm_loss:.3f} nats, held-out: a model that learns beyond"
      " token frequencies is below",
    ),
    *_wrapped("dropped", ", ".join(dropped) or "nothing"),
    *_wrapped("arguments", ", ".join(arguments)),
  ]


def example(batch: example_batch.Batch) -> list[str]:
  """Returns an example, a batch of one, as lines of text.

  A prediction is shown as `[what stood there->what the model reads]`.
  """
  tokens = batch.vocabulary.tokens
  shown = []
  for original, found, is_predicted in zip(
    batch.original_ids[0],
    batch.input_ids[0],
    batch.is_predicted[0],
    strict=True,
  ):
    token = tokens[original]
    read = "MASK" if tokens[found] == vocabulary.MASK else tokens[found]
    shown.append((token, f"[{token}->{read}]" if is_predicted else token))
  num_tokens = int(batch.num_tokens[0])
  second = num_tokens - int(np.count_nonzero(batch.segment_ids[0]))
  label = (
    "the second segment is a random one"
    if batch.next_sentence_labels[0]
    else "the second segment follows the first"
  )
  return [
    *_wrapped("  first segment", _joined(shown[1 : second - 1])),
    *_wrapped("  second segment", _joined(shown[second : num_tokens - 1])),
    *_wrapped("  label", label),
    *_wrapped(
      "  length",
      f"{num_tokens} tokens, {int(batch.num_predictions[0])} predictions",
    ),
  ]


def _joined(pieces: Sequence[tuple[str, str]]) -> str:
  """Returns tokens, and how they are shown, as text."""
  text = ""
  for token, shown in pieces:
    if text and token.startswith(vocabulary.CONTINUATION):
      text += shown.removeprefix(vocabulary.CONTINUATION)
    else:
      text += f" {shown}"
  return text.strip()


def _short(sha256: str | None) -> str:
  return f"{sha256[:12]}..." if sha256 else "None"


def _wrapped(name: str, text: str) -> list[str]:
  return textwrap.wrap(
    text,
    _LINE_WIDTH,
    initial_indent=f"{name:18}",
    subsequent_indent=" " * 18,
    break_long_words=False,
    break_on_hyphens=False,
  )
