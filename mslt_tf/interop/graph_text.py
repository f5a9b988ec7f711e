"""From text to BERT's inputs inside a TensorFlow graph.

mslt_tf/data/examples/bert_text.py prepares text in Python, where an exported
graph cannot go. Here the same rules are regular expressions, whose classes of
characters are Python's, not those of TensorFlow's older Unicode.

B batch, S sequence.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_text as tf_text
from official.nlp.modeling import layers

from mslt_tf.data.examples import bert_text
from mslt_tf.data.examples import vocabulary as vocabulary_lib


def prepare(text: tf.Tensor, *, lower_case: bool) -> tf.Tensor:
  """Returns text as `bert_text.prepare` does; drops what is not UTF-8.

  Args:
    text: Strings of any shape.
    lower_case: Whether to turn it into lower case and to drop the accents.
  """
  replace = tf.strings.regex_replace
  text = tf.strings.unicode_transcode(
    text, "UTF-8", "UTF-8", errors="ignore", replace_control_characters=False
  )
  text = replace(text, _class_of(bert_text.is_dropped), "")
  text = replace(text, _class_of(bert_text.is_space), " ")
  if lower_case:
    # The letters of ASCII first and alone: the other operation goes by the
    # machine's locale, and in Turkish an "I" is no "i". What other languages
    # do with letters beyond ASCII are accents, which go.
    text = tf.strings.lower(tf.strings.lower(text), encoding="utf-8")
    text = tf_text.normalize_utf8(text, "NFD")
    text = replace(text, _class_of(bert_text.is_accent), "")
  text = replace(text, f"({_class_of(bert_text.is_word)})", r" \1 ")
  return replace(text, bert_text.LONG_WORD, bert_text.TOO_LONG)


@functools.cache
def _class_of(is_in: Callable[[str], bool]) -> str:
  """Returns a character class of RE2."""
  ranges: list[list[int]] = []
  for point in range(sys.maxunicode + 1):
    if is_in(chr(point)):
      if ranges and ranges[-1][1] == point - 1:
        ranges[-1][1] = point
      else:
        ranges.append([point, point])
  return "[" + "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in ranges) + "]"


@dataclasses.dataclass(frozen=True)
class TextInputs:
  """Makes a model's inputs of text, eagerly or in a graph."""

  vocabulary: vocabulary_lib.Vocabulary
  lower_case: bool
  max_length: int  # Of a sequence, in tokens; the rest is cut off.

  @functools.cached_property
  def tokenize(self) -> tf.types.experimental.GenericFunction:
    """From strings [B] to int32 ids, ragged [B, (tokens)].

    One function in a graph, however many call it: it holds the vocabulary.
    """
    tokenizer = vocabulary_lib.make_tokenizer(
      self.vocabulary, lower_case=self.lower_case
    )

    @tf.function(
      input_signature=[tf.TensorSpec([None], tf.string, name="sentences")],
      autograph=False,
    )
    def tokenize(sentences):
      prepared = prepare(sentences, lower_case=self.lower_case)
      return tokenizer.op.tokenize(prepared)

    return tokenize

  def tokenize_with_masks(self, text: tf.Tensor) -> tf.RaggedTensor:
    """As `tokenize`; each "[MASK]" in the text is that token, not a word."""
    parts = tf.strings.split(text, vocabulary_lib.MASK)  # [B, (parts)]
    tokens = parts.with_values(self.tokenize(parts.values))
    masks = tf.fill([tf.shape(parts.values)[0], 1], self.special_ids["mask_id"])
    masked = tf.concat([tokens.values, masks], 1)
    # A mask stands between two parts, none behind the last.
    return tokens.with_values(masked).merge_dims(1, 2)[:, :-1]

  @functools.cached_property
  def special_ids(self) -> dict[str, int]:
    """Ids by TF Hub's names for them."""
    ids = self.vocabulary.ids
    return {
      "vocab_size": len(self.vocabulary),
      "start_of_sequence_id": ids[vocabulary_lib.CLS],
      "end_of_segment_id": ids[vocabulary_lib.SEP],
      "padding_id": ids[vocabulary_lib.PADDING],
      "mask_id": ids[vocabulary_lib.MASK],
    }

  def pack(self, segments: Sequence[tf.RaggedTensor]) -> dict[str, tf.Tensor]:
    """Returns inputs by TF Hub's names, int32 [B, S].

    S is what the longest sequence needs, at most `max_length`; of two segments
    the longer is cut first.

    Args:
      segments: One or two, ids [B, (tokens)].
    """
    num_special = len(segments) + 1
    lengths = sum(tf.cast(each.row_lengths(), tf.int32) for each in segments)
    longest = tf.reduce_max(tf.concat([[0], lengths], 0)) + num_special
    return layers.BertPackInputs.bert_pack_inputs(
      list(segments),
      tf.minimum(longest, self.max_length),
      start_of_sequence_id=self.special_ids["start_of_sequence_id"],
      end_of_segment_id=self.special_ids["end_of_segment_id"],
      padding_id=self.special_ids["padding_id"],
    )
