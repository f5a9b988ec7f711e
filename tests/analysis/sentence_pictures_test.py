"""Pictures of a sentence's attention in stages."""

import dataclasses

import numpy as np
import pytest

from mslt_tf import errors
from mslt_tf import schedules
from mslt_tf.analysis import attention_text
from mslt_tf.analysis import sentence_pictures
from mslt_tf.models import pretrained

STACKING = schedules.progressive_stacking(4, 10, stage_shares=(0.3, 0.7))


def of_number(layer, head):
  """A map by which a head is known again; its rows do not sum to 1."""
  return np.full((3, 3), layer / 10 + head / 100, np.float32)


@pytest.fixture(scope="module")
def make_stage(make_pretrained):
  """Makes a stage whose maps are `of_number`, plus 0.5 in the second."""

  def make(number):
    depth = STACKING.stages[number - 1].num_layers
    model = dataclasses.replace(
      make_pretrained(num_layers=depth),
      history=pretrained.History(
        tuple(
          pretrained.StageRecord(stage, {})
          for stage in STACKING.stages[:number]
        )
      ),
    )
    maps = np.array(
      [
        [[of_number(layer, head) for head in range(2)]]
        for layer in range(depth)
      ]
    )
    return sentence_pictures.Stage(
      number, model, lambda _: maps + (number - 1) / 2
    )

  return make


@pytest.fixture(scope="module")
def sentence(make_pretrained):
  return attention_text.of_sentence(make_pretrained(), "w1")


def shown(figure):
  """Returns title and first value of each panel."""
  return [
    (axes.get_title(), round(float(axes.images[0].get_array()[0, 0]), 2))
    for axes in figure.axes[:-1]
  ]


def draw(sentence, stage, before=None, heads=()):
  return sentence_pictures.draw(
    sentence, stage, before=before, heads=heads, name="run"
  )


def test_a_stage_alone_is_one_picture(sentence, make_stage):
  assert set(draw(sentence, make_stage(1))) == {"attention"}


def test_chosen_heads_are_drawn_four_in_a_row(sentence, make_stage):
  heads = [(3, 1), (0, 0), (1, 1), (2, 0), (2, 1)]
  figure = draw(sentence, make_stage(2), heads=heads)["attention_heads"]
  assert shown(figure) == [
    ("layer 3, head 1", 0.81),
    ("layer 0, head 0", 0.5),
    ("layer 1, head 1", 0.61),
    ("layer 2, head 0", 0.7),
    ("layer 2, head 1", 0.71),
  ]
  places = [axes.get_position() for axes in figure.axes[:5]]
  assert len({place.y0 for place in places[:4]}) == 1
  assert places[4].x0 == places[0].x0


def test_before_after_and_copy_stand_in_a_row(sentence, make_stage):
  figure = draw(sentence, make_stage(2), make_stage(1))["attention_stages"]
  assert shown(figure) == [
    ("layer 0, head 0", 0.0),
    ("layer 0, head 0", 0.5),
    ("layer 2, head 0", 0.7),
    ("layer 1, head 1", 0.11),
    ("layer 1, head 1", 0.61),
    ("layer 3, head 1", 0.81),
  ]


def test_a_copy_that_is_asked_for_stands_beside_its_original(
  sentence, make_stage
):
  drawn = draw(sentence, make_stage(2), make_stage(1), heads=[(3, 0)])
  assert shown(drawn["attention_stages"]) == [
    ("layer 1, head 0", 0.1),
    ("layer 1, head 0", 0.6),
    ("layer 3, head 0", 0.8),
  ]


def test_stages_without_a_common_layer_are_told(sentence, make_stage):
  stage = make_stage(2)
  moved = schedules.Stage(4, 7, (1, 0, None, None))
  records = (
    stage.model.history.stages[0],
    pretrained.StageRecord(moved, {}),
  )
  model = dataclasses.replace(stage.model, history=pretrained.History(records))
  with pytest.raises(errors.InputError, match="no layer of stage 1"):
    draw(sentence, dataclasses.replace(stage, model=model), make_stage(1))


def test_pixels_are_red_green_and_blue(make_pretrained):
  picture = sentence_pictures.pixels(
    make_pretrained(), "w1 w2", title="stage 1"
  )
  assert picture.dtype == np.uint8
  assert picture.ndim == 3
  assert picture.shape[2] == 3
