"""Pictures of attention maps."""

import numpy as np
import pytest

from mslt_tf.analysis import attention_figures

TOKENS = ("[CLS]", "$", "cat", "$", "[SEP]")


@pytest.fixture(scope="module")
def maps():
  """[L, N, S, S] of 2 layers with 3 heads."""
  maps = np.random.default_rng(0).random((2, 3, 5, 5), np.float32)
  return maps / maps.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def grid(maps):
  return attention_figures.grid(maps, TOKENS, title="A title of $ and $")


def texts_of(figure):
  return {
    text.get_text()
    for text in figure.findobj(lambda each: hasattr(each, "get_text"))
  }


def labels_of(axis):
  return tuple(label.get_text() for label in axis.get_ticklabels())


def test_a_layer_is_a_row_and_a_head_a_column(grid, maps):
  image = grid.axes[0].images[0].get_array()
  assert image.shape == (11, 17)
  np.testing.assert_array_equal(image[0:5, 0:5], maps[0, 0])
  np.testing.assert_array_equal(image[0:5, 12:17], maps[0, 2])
  np.testing.assert_array_equal(image[6:11, 6:11], maps[1, 1])
  # Lines between.
  assert image.mask[5].all()
  assert image.mask[:, [5, 11]].all()


def test_tokens_stand_at_the_outer_sides_of_each_row_and_column(grid):
  axes = grid.axes[0]
  assert labels_of(axes.yaxis) == TOKENS * 2
  assert labels_of(axes.xaxis) == TOKENS * 3
  assert [*axes.get_yticks()] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]


def test_layers_heads_and_the_scale_are_named(grid):
  assert {"layer 0", "layer 1", "head 0", "head 2"} <= texts_of(grid)
  assert any("attention weight" in text for text in texts_of(grid))


def test_of_many_tokens_those_are_named_that_have_room():
  tokens = [f"t{place}" for place in range(100)]
  maps = np.full((1, 1, 100, 100), 0.01, np.float32)
  axes = attention_figures.grid(maps, tokens, title="").axes[0]
  assert labels_of(axes.yaxis)[:3] == ("t0", "t4", "t8")


def test_pixels_are_colours_darker_where_attention_is(grid, maps):
  image = attention_figures.pixels(grid)
  assert image.dtype == np.uint8
  assert image.shape[2] == 3
  identity = np.eye(5, dtype=np.float32)[np.newaxis, np.newaxis]
  dark = attention_figures.pixels(
    attention_figures.grid(np.ones_like(identity), TOKENS, title="")
  )
  light = attention_figures.pixels(
    attention_figures.grid(np.zeros_like(identity), TOKENS, title="")
  )
  assert dark.shape == light.shape
  assert dark.mean() < light.mean()


def test_panels_stand_beside_each_other_with_headings(maps):
  panels = [
    attention_figures.Panel("layer 0, head 1", maps[0, 1]),
    attention_figures.Panel("layer 1, head 1", maps[1, 1]),
  ]
  figure = attention_figures.panels(
    [panels], TOKENS, title="", columns=["before", "after", "copy"]
  )
  first, second, scale = figure.axes
  np.testing.assert_array_equal(first.images[0].get_array(), maps[0, 1])
  np.testing.assert_array_equal(second.images[0].get_array(), maps[1, 1])
  assert first.get_title() == "layer 0, head 1"
  assert labels_of(first.yaxis) == TOKENS
  assert first.get_position().x0 < second.get_position().x0
  assert scale.get_position().x0 > second.get_position().x1
  assert {"before", "after"} <= texts_of(figure)
  assert "copy" not in texts_of(figure)
