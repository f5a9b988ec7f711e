"""The card tells what the model is and how it came about."""

import dataclasses

from mslt_tf import schedules
from mslt_tf.interop import model_card
from mslt_tf.models import pretrained


def test_the_card_tells_sizes_stages_and_facts(make_pretrained):
  schedule = schedules.mslt(4, 2_000, num_growing_stages=2)
  results = {"eval_mlm_loss": 5.4321, "eval_nsp_accuracy": 0.75}
  history = pretrained.History(
    tuple(
      pretrained.StageRecord(stage, results) for stage in schedule.stages[:2]
    ),
    {"batch size": "1,024", "trap": "a | b\n# c"},
  )
  model = dataclasses.replace(make_pretrained(), history=history)
  card = model_card.render(model, class_name="BertForMaskedLM")
  lines = card.splitlines()
  assert lines[0] == "---"
  assert lines[3:5] == ["tags: [bert, mslt]", "---"]
  assert "AutoModelForMaskedLM.from_pretrained" in card
  assert "| intermediate size | 10 |" in lines
  assert "| 1 | 800 | 2 | 0 | trained | 5.4321 |  |  | 0.7500 |" in lines
  assert "| 2 | 800 | 4 | 2 | frozen | 5.4321 |  |  | 0.7500 |" in lines
  assert "1,600 steps in 2 stage(s);" in card
  assert "| batch size | 1,024 |" in lines
  assert r"| trap | a \| b # c |" in lines


def test_nothing_known_is_said(make_pretrained):
  card = model_card.render(make_pretrained(), class_name="BertModel")
  assert card.endswith("Nothing is known of it.\n")
