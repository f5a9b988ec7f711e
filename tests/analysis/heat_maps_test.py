"""Tables in colour."""

import numpy as np

from mslt_tf.analysis import heat_maps

FIRST = heat_maps.Table(
  "first", ["layer 0", "layer 1"], np.array([[0.1, 0.256, 0], [0.5, 0.4, 0.3]])
)
SECOND = heat_maps.Table("second", ["layer 0"], np.array([[0.8, 0, 0]]))


def test_numbers_stand_in_their_cells():
  figure = heat_maps.draw([[FIRST]], title="Title", unit="bits")
  axes = figure.axes[0]
  written = {text.get_position(): text.get_text() for text in axes.texts}
  assert written[(1, 0)] == "0.26"
  assert written[(0, 1)] == "0.50"
  rows = [label.get_text() for label in axes.get_yticklabels()]
  assert rows == ["layer 0", "layer 1"]


def test_small_numbers_are_told_from_0():
  small = heat_maps.Table(
    "small", ["layer 0"], np.array([[0.00012, 0.00234, 0.0567]])
  )
  figure = heat_maps.draw([[small]], title="Title", unit="bits")
  written = [text.get_text() for text in figure.axes[0].texts]
  assert written == ["<0.001", "0.0023", "0.057"]


def test_tables_have_one_scale():
  figure = heat_maps.draw([[FIRST], [SECOND]], title="Title", unit="bits")
  images = [axes.images[0] for axes in figure.axes[:2]]
  assert [image.get_clim() for image in images] == [(0, 0.8)] * 2
  assert figure.axes[-1].get_ylabel() == "bits"


def test_tables_do_not_overlap():
  figure = heat_maps.draw(
    [[FIRST, SECOND], [SECOND]], title="Title", unit="bits"
  )
  first, second, third = (axes.get_position() for axes in figure.axes[:3])
  assert first.x1 < second.x0
  assert third.y1 < first.y0


def test_a_table_of_zeros_is_drawn():
  zeros = heat_maps.Table("zeros", ["layer 0"], np.zeros((1, 3)))
  figure = heat_maps.draw([[zeros]], title="Title", unit="bits")
  assert [text.get_text() for text in figure.axes[0].texts] == ["0"] * 3
