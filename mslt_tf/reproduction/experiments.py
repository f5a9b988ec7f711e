"""What the reproduction trains: a list, in the order in which it is done.

Everything else is in configs/reproduction.yaml, which is MSLT; an experiment is
what differs from it.
"""

import dataclasses

NUM_STEPS = 3_000
# What the baseline, and stacking, do in the time of MSLT's NUM_STEPS, by
# bin/benchmark.py.
EQUAL_TIME_STEPS = 1_600
STACKING_EQUAL_TIME_STEPS = 1_900
MAIN_SEEDS = (0, 1, 2)
# The baseline's stage that ends after EQUAL_TIME_STEPS, before its rate has
# come down.
CUT_STAGE = 1


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A way of training.

  Attributes:
    name: Of its runs, with the seed behind.
    title: What tables call it.
    settings: What `--set` gives to bin/pretrain.py.
    seeds: A run each.
    question: What an ablation asks; "" for the main comparison.
  """

  name: str
  title: str
  settings: tuple[str, ...] = ()
  seeds: tuple[int, ...] = (0,)
  question: str = ""


@dataclasses.dataclass(frozen=True)
class Run:
  """One experiment with one seed."""

  experiment: Experiment
  seed: int

  @property
  def name(self) -> str:
    return f"{self.experiment.name}_{self.seed}"

  @property
  def settings(self) -> tuple[str, ...]:
    return (*self.experiment.settings, f"training.seed={self.seed}")


# A border at which nothing grows and all of the optimizer's state is carried
# changes nothing but that its weights are kept: those of the cut baseline.
BASELINE = Experiment(
  "baseline",
  "baseline",
  (
    f"schedule={{method: baseline, num_steps: {EQUAL_TIME_STEPS},"
    f" extra_steps: {NUM_STEPS - EQUAL_TIME_STEPS}}}",
    "optimizer.state_at_growth=carried",
  ),
  MAIN_SEEDS,
)
STACKING = Experiment(
  "stacking",
  "progressive stacking",
  (f"schedule={{method: progressive_stacking, num_steps: {NUM_STEPS}}}",),
  MAIN_SEEDS,
)
MSLT = Experiment("mslt", "MSLT, k = 4", (), MAIN_SEEDS)
SHORT_BASELINE = Experiment(
  "baseline_short",
  "baseline, rate decayed over MSLT's time",
  (f"schedule={{method: baseline, num_steps: {EQUAL_TIME_STEPS}}}",),
  MAIN_SEEDS,
)
MAIN = (BASELINE, STACKING, MSLT, SHORT_BASELINE)
# Beyond the paper: its comparison in equal time is with the baseline alone.
SHORT_STACKING = Experiment(
  "stacking_short",
  "progressive stacking, rate decayed over MSLT's time",
  (
    "schedule={method: progressive_stacking, num_steps:"
    f" {STACKING_EQUAL_TIME_STEPS}}}",
  ),
  MAIN_SEEDS,
)

ABLATIONS = (
  # Whether depth gains anything at this size.
  Experiment(
    "three_layers",
    "3 from the first step to the last, all trained",
    (
      "model.num_layers=3",
      f"schedule={{method: baseline, num_steps: {NUM_STEPS}}}",
    ),
    MAIN_SEEDS,
    question="layers",
  ),
  Experiment(
    "no_retraining",
    "0 %",
    ("schedule.retraining_share=0",),
    question="share of retraining",
  ),
  Experiment(
    "retraining_10",
    "10 %",
    ("schedule.retraining_share=0.1",),
    question="share of retraining",
  ),
  Experiment(
    "retraining_40",
    "40 %",
    ("schedule.retraining_share=0.4",),
    MAIN_SEEDS,
    question="share of retraining",
  ),
  Experiment(
    "two_stages",
    "k = 2",
    ("schedule.num_growing_stages=2",),
    question="growing stages",
  ),
  Experiment(
    "three_stages",
    "k = 3",
    ("schedule.num_growing_stages=3",),
    question="growing stages",
  ),
  Experiment(
    "six_stages",
    "k = 6",
    ("schedule.num_growing_stages=6",),
    question="growing stages",
  ),
  Experiment(
    "random_layers",
    "random",
    ("schedule.new_layers=random",),
    question="new layers",
  ),
  Experiment(
    "words_trained",
    "trained, as the output matrix",
    ("schedule.freeze_embeddings=false",),
    MAIN_SEEDS,
    question="word embeddings in stages 2 to k",
  ),
  Experiment(
    "stage_curve",
    "a warmup and decay in every stage",
    ("optimizer.curve=stage",),
    question="learning rate",
  ),
  Experiment(
    "carried_state",
    "carried",
    ("optimizer.state_at_growth=carried",),
    question="optimizer's state at growth",
  ),
  Experiment(
    "dropout_when_frozen",
    "on",
    ("model.dropout_when_frozen=true",),
    question="dropout in the frozen part",
  ),
  # The rate was chosen for the baseline.
  Experiment(
    "half_rate",
    "0.005",
    ("optimizer.peak_learning_rate=0.005",),
    question="peak rate",
  ),
  Experiment(
    "double_rate",
    "0.02",
    ("optimizer.peak_learning_rate=0.02",),
    question="peak rate",
  ),
)
# What MSLT itself answers to the ablations' questions.
DEFAULTS = {
  "layers": "3, 6, 9, 12",
  "share of retraining": "20 %",
  "growing stages": "k = 4",
  "new layers": "copied from the top",
  "word embeddings in stages 2 to k": "frozen",
  "learning rate": "one curve over the run",
  "optimizer's state at growth": "fresh",
  "dropout in the frozen part": "off",
  "peak rate": "0.01",
}
# The paper's Figure 3.
TWO_STAGE_STACKING = Experiment(
  "stacking_6_12",
  "stacking from 6 to 12 layers",
  (
    f"schedule={{method: progressive_stacking, num_steps: {NUM_STEPS},"
    " stage_shares: [0.3, 0.7]}",
  ),
)


def main_runs() -> list[Run]:
  """Returns the main comparison's, all of a seed before the next seed."""
  return [Run(each, seed) for seed in MAIN_SEEDS for each in MAIN]


def other_runs() -> list[Run]:
  """Returns those of the ablations, of Figure 3, and stacking's short ones."""
  return [
    Run(each, seed)
    for each in (*ABLATIONS, TWO_STAGE_STACKING, SHORT_STACKING)
    for seed in each.seeds
  ]


def all_runs() -> list[Run]:
  return [*main_runs(), *other_runs()]
