"""Pre-training of BERT by a schedule of stages, from config to summary."""

import contextlib
import dataclasses
import gc
import hashlib
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
from absl import logging

from mslt_tf import assembly
from mslt_tf import config as config_lib
from mslt_tf import errors
from mslt_tf import finished_model
from mslt_tf import initial_weights
from mslt_tf import outline
from mslt_tf import processor
from mslt_tf import stage_training
from mslt_tf import tensorboard_text
from mslt_tf.analysis import attention_images
from mslt_tf.data.reading import input_pipeline
from mslt_tf.data.reading import manifest
from mslt_tf.models import fused
from mslt_tf.training import cluster as cluster_lib
from mslt_tf.training import loop
from mslt_tf.training import metrics
from mslt_tf.training import run_directory
from mslt_tf.training import termination

# Held-out results of a finished stage.
RESULTS = (
  "step",
  "eval_mlm_loss",
  "eval_mlm_accuracy",
  "eval_nsp_loss",
  "eval_nsp_accuracy",
)


def run(
  config: config_lib.Config,
  workdir: str,
  *,
  max_seconds: float = math.inf,
  started: float | None = None,
) -> bool:
  """Pre-trains, from where `workdir` stands to the last step.

  Must be called in the main thread. Every worker of a job calls it with the
  same arguments.

  Args:
    config: The run.
    workdir: Where it writes; a second call with the same config goes on there.
    max_seconds: Stops with a checkpoint after so much wall time.
    started: `time.monotonic()` at the start of the process; by default now.

  Returns:
    Whether the run is finished.

  Raises:
    InputError: For data, a workdir or devices that do not fit the config, and
      for a run that diverges.
    LostWorkerError: Another worker stopped.
    TerminatedError: SIGTERM came; all is saved.
  """
  started = time.monotonic() if started is None else started
  if config.training.deterministic:
    tf.config.experimental.enable_op_determinism()
  cluster = cluster_lib.connect(
    config.training.strategy,
    tpu=config.training.tpu,
    timeout=config.training.worker_timeout,
  )
  _check_divisibility(config, cluster)
  _check_reuse(config, workdir, cluster)
  with (
    cluster_lib.naming_lost_workers(cluster),
    termination.watch() as is_asked_to_stop,
    contextlib.ExitStack() as stack,
  ):
    data = assembly.open_data(config)
    attention_images.check(config, data)
    # What cannot begin leaves no workdir.
    initial = initial_weights.read(config, workdir, data)
    if cluster.is_chief:
      stack.enter_context(run_directory.alone(workdir))
    return _run_stages(
      config,
      workdir,
      data=data,
      initial=initial,
      cluster=cluster,
      deadline=loop.Deadline(started + max_seconds),
      clock=metrics.Clock(started),
      is_asked_to_stop=is_asked_to_stop,
    )


def _run_stages(
  config: config_lib.Config,
  workdir: str,
  *,
  data: manifest.Data,
  initial: initial_weights.InitialWeights | None,
  cluster: cluster_lib.Cluster,
  deadline: loop.Deadline,
  clock: metrics.Clock,
  is_asked_to_stop: tf.Variable,
) -> bool:
  directory = _open_workdir(config, workdir, data, initial, cluster)
  stages = outline.place_stages(config.schedule)
  num_finished = 0
  if cluster.is_chief:
    num_finished = directory.last_finished(len(stages))
  num_finished = cluster.broadcast(num_finished)
  if num_finished:
    if cluster.is_chief:
      for stage in stages[:num_finished]:
        directory.remove_checkpoints(stage.number)
    results = directory.read_results(num_finished)
    clock.resume(
      wall_seconds=results["wall_seconds"],
      train_seconds=results["train_seconds"],
    )
  if cluster.is_chief and num_finished < len(stages):
    tensorboard_text.write(
      directory.tensorboard,
      config,
      # The folder's name alone may be that of another run too.
      name=f"{os.path.basename(os.path.normpath(workdir))} ({workdir})",
    )
    # What bin/compare_runs.py shows of a run that is going on.
    _write_summary(config, data, cluster, directory, clock)
  is_finished = True
  for stage in stages[num_finished:]:
    # Building a stage takes longer than the grace after a SIGTERM.
    is_finished = not cluster.any(bool(is_asked_to_stop.numpy()))
    if is_finished:
      with fused.releasing_graphs():
        is_finished = stage_training.StageTraining(
          config=config,
          data=data,
          cluster=cluster,
          directory=directory,
          stage=stage,
          clock=clock,
          deadline=deadline,
          is_asked_to_stop=is_asked_to_stop,
        ).run()
    if not is_finished:
      break
    # It and its graphs refer to themselves; the next stage needs the memory.
    gc.collect()
    if cluster.is_chief:
      attention_images.write(
        directory, stage.number, config.training.attention_sentence
      )
    _write_summary(config, data, cluster, directory, clock)
  _write_summary(config, data, cluster, directory, clock)
  # No worker leaves while another still needs it.
  was_asked = cluster.any(bool(is_asked_to_stop.numpy()))
  if was_asked and not is_finished:
    raise errors.TerminatedError(
      "stopped by SIGTERM, everything is saved; run again to continue."
    )
  return is_finished


def _check_divisibility(
  config: config_lib.Config, cluster: cluster_lib.Cluster
) -> None:
  num_replicas = cluster.num_replicas
  num_parts = num_replicas * config.training.num_micro_batches
  if config.data.batch_size % num_parts:
    raise errors.InputError(
      f"data.batch_size={config.data.batch_size} is not divisible by"
      f" {num_parts}, which is {num_replicas} devices times"
      f" training.num_micro_batches={config.training.num_micro_batches}."
    )
  num_shares = math.gcd(config.data.batch_size, input_pipeline.NUM_LANES)
  if num_shares % cluster.num_workers:
    raise errors.InputError(
      f"data.batch_size={config.data.batch_size} cannot be shared out to"
      f" {cluster.num_workers} workers; their number must divide {num_shares},"
      f" its greatest common divisor with {input_pipeline.NUM_LANES}."
    )
  if config.training.eval_batch_size % num_replicas:
    raise errors.InputError(
      f"training.eval_batch_size={config.training.eval_batch_size} is not"
      f" divisible by the {num_replicas} devices."
    )


def _check_reuse(
  config: config_lib.Config, workdir: str, cluster: cluster_lib.Cluster
) -> None:
  limit = config.training.reuse_frozen_states_gb
  if not limit:
    return
  if cluster.num_workers > 1:
    raise errors.InputError(
      f"training.reuse_frozen_states_gb={limit} is for one worker; there are"
      f" {cluster.num_workers}."
    )
  if "://" in workdir:
    raise errors.InputError(
      f"training.reuse_frozen_states_gb={limit} needs a --workdir on a local"
      f" disk; {workdir} is none."
    )


def _open_workdir(
  config: config_lib.Config,
  workdir: str,
  data: manifest.Data,
  initial: initial_weights.InitialWeights | None,
  cluster: cluster_lib.Cluster,
) -> run_directory.RunDirectory:
  """Claims the workdir for the run, once for all workers."""
  identity = config_lib.identity(config)
  identity["data"]["fingerprint"] = data.fingerprint
  if initial is not None:
    identity["model"]["initial_weights_sha256"] = initial.sha256
  if cluster.is_chief:
    directory = run_directory.claim(workdir, identity)
    directory.write_text(finished_model.CONFIG_FILE, config_lib.to_yaml(config))
    _describe_data(data, directory)
    initial_weights.keep(initial, directory)
    _describe_start(config, workdir, data, cluster)
  cluster_lib.check_shared(cluster, workdir)
  _check_agreement(config, identity, cluster)
  return run_directory.RunDirectory(workdir)


def _describe_data(
  data: manifest.Data, directory: run_directory.RunDirectory
) -> None:
  """Writes what an export of the model needs; the data may be gone by then."""
  if data.vocab_file is not None:
    with tf.io.gfile.GFile(data.vocab_file) as file:
      directory.write_text(finished_model.VOCABULARY_FILE, file.read())
  directory.write_json(
    finished_model.DATA_FILE,
    {
      "training_examples": data.train.num_examples,
      "training_documents": data.train.num_documents,
      "training_tokens": data.train.num_tokens,
      "heldout_examples": data.heldout.num_examples,
      "data_sha256": data.fingerprint,
      "vocabulary_sha256": data.vocab_sha256,
    },
  )


def _check_agreement(
  config: config_lib.Config,
  identity: Mapping[str, Any],
  cluster: cluster_lib.Cluster,
) -> None:
  """Raises `InputError` on every worker unless all have one config and data."""
  what = [identity, dataclasses.asdict(config.training)]
  text = json.dumps(what, sort_keys=True)
  digest = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
  differs = cluster.broadcast(digest) != digest
  if cluster.any(differs):
    who = f"worker {cluster.worker}" if differs else "another worker"
    raise errors.InputError(
      f"{who} was started with another config or other data than the chief; all"
      " workers need the same."
    )


def _describe_start(
  config: config_lib.Config,
  workdir: str,
  data: manifest.Data,
  cluster: cluster_lib.Cluster,
) -> None:
  """Logs what the run uses: devices, how a batch is split, and disk."""
  num_micro_batches = config.training.num_micro_batches
  num_parts = cluster.num_replicas * num_micro_batches
  logging.info(
    "%d worker(s), %d device(s) (%s), batch of %d as %d x %d x %d examples, %s",
    cluster.num_workers,
    cluster.num_replicas,
    cluster.device_type,
    config.data.batch_size,
    cluster.num_replicas,
    num_micro_batches,
    config.data.batch_size // num_parts,
    config.training.precision,
  )
  needed = outline.disk_bytes(config, data.train.num_examples)
  try:
    free = shutil.disk_usage(workdir).free
    held = sum(
      os.path.getsize(os.path.join(folder, name))
      for folder, _, names in os.walk(workdir)
      for name in names
    )
  except OSError:
    # A bucket.
    logging.info("%s will hold up to %.3g GB", workdir, needed / 1e9)
    return
  logging.log(
    logging.WARNING if held + free < needed else logging.INFO,
    "%s will hold up to %.3g GB; %s%.3g GB are free",
    workdir,
    needed / 1e9,
    "only " if held + free < needed else "",
    free / 1e9,
  )


def _write_summary(
  config: config_lib.Config,
  data: manifest.Data,
  cluster: cluster_lib.Cluster,
  directory: run_directory.RunDirectory,
  clock: metrics.Clock,
) -> None:
  """Writes how the run stands after its last finished stage."""
  if not cluster.is_chief:
    return
  finished = [
    {
      "stage": stage.number,
      **dataclasses.asdict(stage.stage),
      **directory.read_results(stage.number),
    }
    for stage in outline.place_stages(config.schedule)
    if directory.is_finished(stage.number)
  ]
  is_finished = directory.is_finished(len(config.schedule.stages))
  last = {name: finished[-1][name] for name in RESULTS} if finished else {}
  # A finished run took what its last stage says, however often it is started.
  wall, train = clock.wall_seconds, clock.train_seconds
  if is_finished:
    wall, train = finished[-1]["wall_seconds"], finished[-1]["train_seconds"]
  directory.write_json(
    "summary.json",
    {
      "is_finished": is_finished,
      "num_steps": config.schedule.num_steps,
      **last,
      "wall_seconds": wall,
      "train_seconds": train,
      "data_fingerprint": data.fingerprint,
      "unigram_mlm_loss": data.unigram_mlm_loss,
      "stages": finished,
      "config": config_lib.to_dict(config),
      "versions": {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
      },
      "machine": {
        "processor": processor.describe(),
        "cores": processor.num_cores(),
        "devices": [device.name for device in tf.config.list_logical_devices()],
        "strategy": type(cluster.strategy).__name__,
        "workers": cluster.num_workers,
        "replicas": cluster.num_replicas,
      },
    },
  )
