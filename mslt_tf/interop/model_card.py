"""A model's card for people: what it is and how it was trained."""

import math
from collections.abc import Sequence

from mslt_tf.data import whole_files
from mslt_tf.models import architecture as architecture_lib
from mslt_tf.models import pretrained

_METRICS = {
  "eval_mlm_loss": "MLM loss",
  "eval_mlm_accuracy": "MLM accuracy",
  "eval_nsp_loss": "NSP loss",
  "eval_nsp_accuracy": "NSP accuracy",
}
_USES = {
  "BertForPreTraining": "BertForPreTraining",
  "BertForMaskedLM": "AutoModelForMaskedLM",
  "BertModel": "AutoModel",
}


def write(
  model: pretrained.PretrainedBert, path: str, *, class_name: str
) -> None:
  whole_files.write(path, render(model, class_name=class_name).encode())


def render(model: pretrained.PretrainedBert, *, class_name: str) -> str:
  """Returns the card as Markdown with the metadata that the Hub reads.

  Args:
    model: Whose history is told.
    class_name: The class of transformers that it was exported for.
  """
  loader = _USES[class_name]
  lines = [
    "---",
    "library_name: transformers",
    *(
      ["pipeline_tag: fill-mask"]
      if class_name != "BertModel"
      else ["pipeline_tag: feature-extraction"]
    ),
    "tags: [bert, mslt]",
    "---",
    "",
    f"# BERT, {model.architecture.num_layers} layers",
    "",
    "Written by mslt_tf, a TensorFlow implementation of multi-stage layerwise"
    " training of BERT.",
    "",
    "```python",
    "import transformers",
    "",
    f'model = transformers.{loader}.from_pretrained("DIRECTORY")',
    'tokenizer = transformers.AutoTokenizer.from_pretrained("DIRECTORY")',
    "```",
    "",
    "## Model",
    "",
    *_table(["", ""], _sizes(model)),
    "",
    "## Training",
    "",
    *_training(model.history),
  ]
  return "\n".join(lines) + "\n"


def _sizes(model: pretrained.PretrainedBert) -> list[list[str]]:
  architecture = model.architecture
  activation = {
    "gelu_tanh": "GELU, approximated by tanh (`gelu_new`), as in Google's BERT",
    "gelu_exact": "GELU, exact (`gelu`)",
  }[architecture.activation]
  return [
    ["layers", f"{architecture.num_layers}"],
    ["hidden size", f"{architecture.hidden_size:,}"],
    ["attention heads", f"{architecture.num_heads}"],
    ["intermediate size", f"{architecture.intermediate_size:,}"],
    ["positions", f"{architecture.max_positions:,}"],
    ["vocabulary", f"{architecture.vocab_size:,}"],
    ["lower case", "yes" if model.lower_case else "no"],
    ["activation", activation],
    [
      "weights",
      f"{architecture_lib.num_parameters(architecture):,}, heads included",
    ],
  ]


def _training(history: pretrained.History) -> list[str]:
  lines = []
  if history.stages:
    steps = sum(record.stage.num_steps for record in history.stages)
    lines += [
      f"{steps:,} steps in {len(history.stages)} stage(s); masked language"
      " model and next sentence prediction. Metrics are held-out ones at a"
      " stage's end.",
      "",
      *_table(
        [
          "stage",
          "steps",
          "layers",
          "frozen",
          "embeddings",
          *_METRICS.values(),
        ],
        [
          _stage(number, record)
          for number, record in enumerate(history.stages, start=1)
        ],
      ),
      "",
    ]
  if history.facts:
    lines += _table(["", ""], [list(fact) for fact in history.facts.items()])
  return lines or ["Nothing is known of it."]


def _stage(number: int, record: pretrained.StageRecord) -> list[str]:
  stage = record.stage
  return [
    f"{number}",
    f"{stage.num_steps:,}",
    f"{stage.num_layers}",
    f"{stage.num_frozen_layers}",
    stage.embeddings,
    *(_number(record.results.get(name, math.nan)) for name in _METRICS),
  ]


def _number(value: float) -> str:
  return "" if math.isnan(value) else f"{value:.4f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  return [
    "| " + " | ".join(cells) + " |"
    for cells in [heads, ["---"] * len(heads), *map(_escaped, rows)]
  ]


def _escaped(cells: Sequence[str]) -> list[str]:
  # Some come from files of other people.
  return [" ".join(cell.replace("|", r"\|").split()) for cell in cells]
