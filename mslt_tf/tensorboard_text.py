"""What TensorBoard shows of a run besides its metrics: schedule and config."""

import dataclasses
from typing import Any

import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from mslt_tf import config as config_lib
from mslt_tf import outline
from mslt_tf.training import run_directory

# What the tab HParams has columns for, beside the config's fields.
_METRICS = (
  ("eval/mlm_loss", "held-out MLM loss"),
  ("eval/mlm_accuracy", "held-out MLM accuracy"),
  ("eval/nsp_accuracy", "held-out NSP accuracy"),
  ("train/train_seconds", "training (seconds)"),
  ("train/examples_per_second", "examples/s"),
)


def write(event_dir: str, config: config_lib.Config, *, name: str) -> None:
  """Writes the schedule as text, and the config for the tab HParams.

  There the runs of a folder stand one below the other, baseline and MSLT with
  the same columns.

  Args:
    event_dir: Where the run's scalars go too.
    config: The run.
    name: What the tab calls it.
  """
  with run_directory.writing(event_dir):
    writer = tf.summary.create_file_writer(event_dir)
    with writer.as_default(step=0):
      tf.summary.text("schedule", _verbatim(outline.describe_schedule(config)))
      tf.summary.text("config", _verbatim(config_lib.to_yaml(config)))
      hparams.hparams_config(
        hparams=[hparams.HParam(name) for name in fields(config)],
        metrics=[
          hparams.Metric(tag, display_name=name) for tag, name in _METRICS
        ],
      )
      hparams.hparams(fields(config), trial_id=name)
    writer.close()


def _verbatim(text: str) -> str:
  """TensorBoard reads Markdown."""
  return "\n".join(f"    {line}" for line in text.splitlines())


def fields(config: config_lib.Config) -> dict[str, Any]:
  """Returns what tells runs apart, by `section.field`, as numbers or text."""
  stages = config.schedule.stages
  schedule = {
    "num_steps": config.schedule.num_steps,
    "num_stages": len(stages),
    "layers": " ".join(str(stage.num_layers) for stage in stages),
    "frozen_layers": " ".join(str(stage.num_frozen_layers) for stage in stages),
  }
  sections = {
    "schedule": schedule,
    "model": dataclasses.asdict(config.model),
    "data": {
      "sequence_length": config.data.sequence_length,
      "batch_size": config.data.batch_size,
    },
    "optimizer": dataclasses.asdict(config.optimizer),
    "training": {
      "seed": config.training.seed,
      "precision": config.training.precision,
    },
  }
  return {
    f"{section}.{name}": value
    for section, of_section in sections.items()
    for name, value in of_section.items()
    if value is not None
  }
