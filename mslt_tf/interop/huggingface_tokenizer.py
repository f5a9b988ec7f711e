"""A vocabulary as Hugging Face's tokenizer files, and back."""

import os
from typing import Any

import tensorflow as tf
from absl import logging

from mslt_tf import errors
from mslt_tf.data.examples import vocabulary as vocabulary_lib
from mslt_tf.interop import json_file

_ROLES = {
  "unk_token": vocabulary_lib.UNKNOWN,
  "sep_token": vocabulary_lib.SEP,
  "pad_token": vocabulary_lib.PADDING,
  "cls_token": vocabulary_lib.CLS,
  "mask_token": vocabulary_lib.MASK,
}


def write(
  vocabulary: vocabulary_lib.Vocabulary,
  directory: str,
  *,
  lower_case: bool,
  max_positions: int,
) -> None:
  """Writes what `AutoTokenizer` needs to split text as the training data was.

  Files: `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and
  `special_tokens_map.json`.
  """
  vocabulary_lib.save(vocabulary, os.path.join(directory, "vocab.txt"))
  json_file.write(
    os.path.join(directory, "tokenizer.json"),
    _tokenizer(vocabulary, lower_case=lower_case),
  )
  json_file.write(
    os.path.join(directory, "tokenizer_config.json"),
    {
      "tokenizer_class": "BertTokenizer",
      "do_lower_case": lower_case,
      "strip_accents": None,
      "tokenize_chinese_chars": True,
      "model_max_length": max_positions,
      **_ROLES,
    },
  )
  json_file.write(os.path.join(directory, "special_tokens_map.json"), _ROLES)


def read(
  directory: str, *, lower_case: bool | None = None
) -> tuple[vocabulary_lib.Vocabulary, bool]:
  """Returns the vocabulary of a model, and whether it is lower-cased.

  Args:
    lower_case: Whatever the files say. Where they say nothing, a vocabulary
      without an upper-case letter is lower-cased.

  Raises:
    InputError: There is no vocabulary, or not one of BERT.
  """
  settings: dict[str, Any] = {}
  tokenizer: dict[str, Any] = {}
  if _exists(directory, "tokenizer_config.json"):
    settings = json_file.read(os.path.join(directory, "tokenizer_config.json"))
  path = os.path.join(directory, "tokenizer.json")
  if _exists(directory, "tokenizer.json"):
    tokenizer = json_file.read(path)
  if tokenizer and not _exists(directory, "vocab.txt"):
    vocabulary = _vocabulary_of(tokenizer, path)
  else:
    vocabulary = vocabulary_lib.load(os.path.join(directory, "vocab.txt"))
  normalizer = tokenizer.get("normalizer")
  normalizer = normalizer if isinstance(normalizer, dict) else {}
  said = settings.get("do_lower_case", normalizer.get("lowercase"))
  if lower_case is None:
    lower_case = said if isinstance(said, bool) else is_uncased(vocabulary)
  _warn_of_other_splitting(settings, directory, lower_case=lower_case)
  return vocabulary, lower_case


def is_uncased(vocabulary: vocabulary_lib.Vocabulary) -> bool:
  """Whether no token but those in brackets has an upper-case letter."""
  return not any(
    token != token.lower() and not token.startswith("[")
    for token in vocabulary.tokens
  )


def _warn_of_other_splitting(
  settings: dict[str, Any], directory: str, *, lower_case: bool
) -> None:
  usual = {"strip_accents": lower_case, "tokenize_chinese_chars": True}
  for name, value in usual.items():
    if settings.get(name) not in (None, value):
      logging.warning(
        "%s/tokenizer_config.json has %s=%s; text will be split here as with"
        " %s",
        directory,
        name,
        settings[name],
        value,
      )


def _vocabulary_of(
  tokenizer: dict[str, Any], path: str
) -> vocabulary_lib.Vocabulary:
  model = tokenizer.get("model")
  if not isinstance(model, dict) or model.get("type") != "WordPiece":
    kind = model.get("type") if isinstance(model, dict) else "missing"
    raise errors.InputError(
      f"{path}: its model is {str(kind)[:40]}, not WordPiece, as BERT's is."
    )
  ids = model.get("vocab")
  if not isinstance(ids, dict) or sorted(map(str, ids.values())) != sorted(
    map(str, range(len(ids)))
  ):
    raise errors.InputError(
      f"{path}: model.vocab must number its tokens from 0 on."
    )
  tokens = sorted(ids, key=lambda token: int(ids[token]))
  if any("\n" in token for token in tokens):
    raise errors.InputError(f"{path}: a token has a line break in it.")
  return vocabulary_lib.of_tokens(tokens, source=path)


def _tokenizer(
  vocabulary: vocabulary_lib.Vocabulary, *, lower_case: bool
) -> dict[str, Any]:
  """Returns the content of `tokenizer.json`, which needs no other file."""
  ids = vocabulary.ids
  cls, sep = vocabulary_lib.CLS, vocabulary_lib.SEP

  def piece(token: str, segment: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": segment}}

  def text(name: str, segment: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": segment}}

  single = [piece(cls, 0), text("A", 0), piece(sep, 0)]
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {
        "id": ids[token],
        "content": token,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
      }
      for token in sorted(vocabulary_lib.SPECIAL_TOKENS, key=ids.__getitem__)
    ],
    "normalizer": {
      "type": "BertNormalizer",
      "clean_text": True,
      "handle_chinese_chars": True,
      "strip_accents": None,
      "lowercase": lower_case,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
      "type": "TemplateProcessing",
      "single": single,
      "pair": [*single, text("B", 1), piece(sep, 1)],
      "special_tokens": {
        token: {"id": token, "ids": [ids[token]], "tokens": [token]}
        for token in (cls, sep)
      },
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
      "type": "WordPiece",
      "unk_token": vocabulary_lib.UNKNOWN,
      "continuing_subword_prefix": vocabulary_lib.CONTINUATION,
      "max_input_chars_per_word": 100,
      "vocab": ids,
    },
  }


def _exists(directory: str, name: str) -> bool:
  return tf.io.gfile.exists(os.path.join(directory, name))
