"""The check against the paper, as tables for a terminal."""

from collections.abc import Mapping

from mslt_tf import costs
from mslt_tf import schedules
from mslt_tf.planning import cluster as cluster_lib
from mslt_tf.planning import paper_check
from mslt_tf.planning import text_table


def describe(
  checks: Mapping[str, Mapping[str, paper_check.Check | None]],
  stacking: Mapping[str, float],
  cluster: cluster_lib.Cluster,
) -> str:
  """Returns the check: constants, predictions and residuals."""
  num_bytes = sum(costs.update_bytes_per_weight().values())
  lines = [
    "Fitted, one constant a model, to the hours of the paper's baseline alone",
    "(Table 3): FLOP/s of a device. Assumed, since the paper does not tell:",
    f"- {cluster.machine_link_bandwidth * 8e-9:g} Gbit/s between machines of"
    f" {cluster.devices_per_machine} devices; {cluster.overlap:.0%} of the"
    " all-reduce is hidden",
    f"- gradients of {costs.BYTES_PER_PARAMETER} bytes; {num_bytes} bytes of"
    f" memory traffic to update a weight, at"
    f" {cluster.memory_bandwidth / 1e9:g} GB/s",
    f"- {costs.BACKWARD_PER_FORWARD} FLOPs backward for each one forward, at"
    " one rate, frozen layers too",
    "",
    *_fitted_table(checks["the cluster file"], cluster),
    "",
    *_paper_table(checks["the cluster file"]),
    "",
    "The same with other assumptions; the constant is fitted anew in each:",
    *_assumption_table(checks),
    "",
    *_stacking_lines(stacking),
  ]
  return "\n".join(lines)


def _fitted_table(
  models: Mapping[str, paper_check.Check | None], cluster: cluster_lib.Cluster
) -> list[str]:
  peaks = {
    "float32": cluster.peak_flops_float32,
    "float16": cluster.peak_flops_mixed_float16,
  }
  known = {name: peak for name, peak in peaks.items() if peak}
  rows = [
    ["baseline", "TFLOP/s", *(f"of {name} peak" for name in known),
     "forward ms", "backward", "reduce", "update", "step"]
  ]  # fmt: skip
  for name, check in models.items():
    if check is None:
      rows.append([name, "no fit", *[""] * (len(rows[0]) - 2)])
      continue
    step = check.baseline_step
    terms = (step.forward, step.backward, step.all_reduce, step.update)
    rows.append(
      [
        name,
        f"{check.flops_per_second / 1e12:.2f}",
        *(f"{check.flops_per_second / peak:.3f}" for peak in known.values()),
        *(f"{1e3 * seconds:.1f}" for seconds in (*terms, step.seconds)),
      ]
    )
  return text_table.lines(rows)


def _paper_table(
  models: Mapping[str, paper_check.Check | None],
) -> list[str]:
  rows = [
    ["MSLT", "hours", "paper", "residual", "speedup", "paper", "its range",
     "residual"]
  ]  # fmt: skip
  for name, check in models.items():
    if check is None:
      continue
    low, high = check.row.speedup_range
    rows.append(
      [
        name,
        f"{check.mslt_hours:.1f}",
        f"{check.row.mslt_hours:g}",
        f"{check.hours_residual:+.1%}",
        f"{check.speedup:.3f}",
        f"{check.row.speedup:.3f}",
        f"{low:.2f}-{high:.2f}",
        f"{check.speedup_residual:+.1%}",
      ]
    )
  return text_table.lines(rows)


def _assumption_table(
  checks: Mapping[str, Mapping[str, paper_check.Check | None]],
) -> list[str]:
  rows = [["", "Base", "residual", "TFLOP/s", "Large", "residual", "TFLOP/s"]]
  for name, models in checks.items():
    cells = [name]
    for check in models.values():
      if check is None:
        cells += ["no fit", "", ""]
        continue
      cells += [
        f"{check.speedup:.3f}",
        f"{check.speedup_residual:+.1%}",
        f"{check.flops_per_second / 1e12:.1f}",
      ]
    rows.append(cells)
  return [
    *text_table.lines(rows),
    "no fit: all-reduce and update alone take longer than the baseline's step.",
  ]


def _stacking_lines(stacking: Mapping[str, float]) -> list[str]:
  shares = schedules.GONG_STAGE_SHARES
  ideal = 1 / (shares[0] / 4 + shares[1] / 2 + shares[2])
  predicted = ", ".join(f"{name} {x:.2f}" for name, x in stacking.items())
  return [
    "Progressive stacking, 12.5 %, 17.5 % and 70 % of the steps: by its own",
    f"arithmetic, layers only, {ideal:.2f}; predicted here: {predicted}.",
    'Its gain is quoted both as "25 % speedup", which is 1.25, and as',
    '"25 % shorter", which is 1.33.',
  ]
