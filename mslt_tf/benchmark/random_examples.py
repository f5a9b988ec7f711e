"""A batch of random examples, which is all that a benchmark needs of data."""

import numpy as np

from mslt_tf import config as config_lib


def features(config: config_lib.Config) -> dict[str, np.ndarray]:
  """Returns a batch of random examples, full to the last token, as int32.

  Random next labels and masked ids are random; the names are those of
  `data.examples.features`.
  """
  rng = np.random.default_rng(0)
  data = config.data
  shape = (data.batch_size, data.sequence_length)
  positions = np.stack(
    [
      np.sort(
        rng.choice(
          np.arange(1, data.sequence_length), data.max_predictions, False
        )
      )
      for _ in range(data.batch_size)
    ]
  )
  ids = rng.integers(config.model.vocab_size, size=shape)
  half = np.arange(data.sequence_length) >= data.sequence_length // 2
  return {
    "input_ids": ids.astype(np.int32),
    "input_mask": np.ones(shape, np.int32),
    "segment_ids": np.broadcast_to(half, shape).astype(np.int32),
    "masked_lm_positions": positions.astype(np.int32),
    "masked_lm_ids": np.take_along_axis(ids, positions, 1).astype(np.int32),
    "masked_lm_weights": np.ones(positions.shape, np.float32),
    "next_sentence_labels": rng.integers(2, size=shape[0]).astype(np.int32),
  }
