"""BERT of Hugging Face's transformers as a program that can be timed."""

import numpy as np

from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf.benchmark import contestants
from mslt_tf.benchmark import random_examples


class HuggingFace(contestants.Peer):
  """`BertForPreTraining` of transformers, PyTorch's AdamW."""

  def __init__(self, config: config_lib.Config, *, is_compiled: bool):
    precision = config.training.precision
    if precision == "mixed_float16":
      raise errors.InputError(
        f"training.precision={precision}: peers=hugging_face computes in"
        " float32 or mixed_bfloat16."
      )
    try:
      import torch
      import transformers
    except ImportError as error:
      raise errors.InputError(
        "peers=hugging_face needs the extra `interop`: pip install"
        f" --constraint requirements.txt '.[interop]' ({error})."
      ) from None

    model = config.model
    network = transformers.BertForPreTraining(
      transformers.BertConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_layers,
        num_attention_heads=model.num_heads,
        intermediate_size=model.intermediate_size,
        max_position_embeddings=model.max_positions,
        type_vocab_size=model.num_segments,
        hidden_act="gelu_new" if model.activation == "gelu_tanh" else "gelu",
        hidden_dropout_prob=model.hidden_dropout,
        attention_probs_dropout_prob=model.attention_dropout,
      )
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).train()
    optimizer = torch.optim.AdamW(
      network.parameters(),
      1e-4,
      weight_decay=config.optimizer.weight_decay,
      fused=True,
    )
    batch = {
      name: torch.from_numpy(
        np.asarray(value, np.float32 if "weights" in name else np.int64)
      ).to(device)
      for name, value in random_examples.features(config).items()
    }
    loss_of = torch.nn.functional.cross_entropy

    def forward():
      hidden, pooled = network.bert(
        batch["input_ids"],
        attention_mask=batch["input_mask"],
        token_type_ids=batch["segment_ids"],
        return_dict=False,
      )
      positions = batch["masked_lm_positions"][..., None]
      masked = torch.take_along_dim(hidden, positions, 1)  # [B, P, D]
      mlm_logits, nsp_logits = network.cls(masked, pooled)
      return loss_of(
        mlm_logits.flatten(0, 1).float(), batch["masked_lm_ids"].flatten()
      ) + loss_of(nsp_logits.float(), batch["next_sentence_labels"])

    if is_compiled:
      forward = torch.compile(forward)

    def step():
      with torch.autocast(
        device,
        torch.bfloat16,
        enabled=precision == "mixed_bfloat16",
      ):
        loss = forward()
      loss.backward()
      torch.nn.utils.clip_grad_norm_(
        network.parameters(), config.optimizer.clip_norm
      )
      optimizer.step()
      optimizer.zero_grad()
      loss.item()

    super().__init__(step)
