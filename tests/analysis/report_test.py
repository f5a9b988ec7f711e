"""The report is one file that shows what it was given and loads nothing."""

import html.parser

import pytest
from matplotlib.backends import backend_agg

from mslt_tf import schedules
from mslt_tf.analysis import curves
from mslt_tf.analysis import recorded_run
from mslt_tf.analysis import report
from mslt_tf.analysis import schedule_drawing
from mslt_tf.glue import tables

SVG = (
  '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg width="9">'
  "<metadata>made by</metadata><path/></svg>"
)


class Page(html.parser.HTMLParser):
  """Collects tags and texts, and holds closing tags against opening ones."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.texts, self.open = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag != "meta":
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)


@pytest.fixture(scope="module")
def content():
  return report.Report(
    verdict=["One run & another."],
    problems=["mslt: stage <2> has no metrics."],
    sections=[
      report.Section(
        "Pre-training",
        (report.Picture("a.png", SVG, 'A "curve"'),),
        (tables.Table("Steps", ("run", "x"), (("a<b", "1"),), ("A note.",)),),
      )
    ],
    configs=[("mslt", "a: <b>\n")],
  )


def test_the_page_is_whole_and_escaped(content):
  text = report.as_html(content)
  page = Page(text)
  assert page.open == []
  for expected in (
    "One run & another.",
    "mslt: stage <2> has no metrics.",
    "a<b",
    "A note.",
    "a: <b>\n",
    'A "curve"',
  ):
    assert expected in page.texts


def test_the_page_loads_nothing(content):
  page = Page(report.as_html(content))
  names = {tag for tag, _ in page.tags}
  assert not names & {"script", "link", "img", "iframe", "object"}
  assert not any({"src", "href"} & set(attrs) for _, attrs in page.tags)


def test_of_a_picture_only_its_element_is_in_the_page(content):
  text = report.as_html(content)
  assert text.count("<!DOCTYPE") == 1
  assert "made by" not in text
  assert text.count("<path/>") == 1


def test_markdown_says_the_same(content):
  lines = report.as_markdown(content).splitlines()
  assert "- mslt: stage <2> has no metrics." in lines
  assert '![A "curve"](a.png)' in lines
  assert "| a<b | 1 |" in lines


def _evaluations(losses):
  return tuple(
    {"stage": 1, "step": 10 * n, "mlm_loss": loss, "wall_seconds": float(n)}
    for n, loss in enumerate(losses, start=1)
  )


def test_curves_have_four_axes_with_names():
  run = recorded_run.RecordedRun("a", evaluations=_evaluations([9.0, 7.0]))
  figure = curves.draw([run], 6.5)
  assert [axes.get_xlabel() for axes in figure.axes] == [
    "steps",
    "wall time (seconds)",
    "training FLOPs (not known)",
    "training examples (not known)",
  ]
  (line, unigram) = figure.axes[0].lines
  assert line.get_xydata().tolist() == [[10.0, 9.0], [20.0, 7.0]]
  assert unigram.get_ydata() == [6.5, 6.5]
  # What is not known is not drawn.
  assert len(figure.axes[2].lines[0].get_xdata()) == 0


def test_a_curve_breaks_where_a_stage_is_missing_and_marks_stage_ends():
  schedule = schedules.Schedule(
    tuple(schedules.Stage(1, 10, (origin,)) for origin in (None, 0, 0))
  )
  first, third = _evaluations([9.0, 8.0])
  run = recorded_run.RecordedRun(
    "a",
    evaluations=(first, {**third, "stage": 3, "step": 30}),
    schedule=schedule,
  )
  lines = curves.draw([run], None).axes[0].lines
  assert [line.get_xdata().tolist() for line in lines] == [[10.0], [30.0]]
  assert [line.get_markevery() for line in lines] == [[0], [0]]


def test_early_losses_run_out_at_the_top():
  losses = [11.0, 8.0, 7.5, 7.2, 7.1, 7.0, 7.0, 7.0, 7.0, 7.0]
  run = recorded_run.RecordedRun("a", evaluations=_evaluations(losses))
  low, high = curves.draw([run], None).axes[0].get_ylim()
  assert 6.8 < low < 7.0
  assert 8.0 < high < 8.2


def test_a_run_that_has_only_begun_is_in_the_picture():
  old = recorded_run.RecordedRun("a", evaluations=_evaluations([7.0] * 20))
  new = recorded_run.RecordedRun("b", evaluations=_evaluations([9.0, 8.0]))
  low, high = curves.draw([old, new], None).axes[0].get_ylim()
  assert 6.8 < low < 7.0
  assert 8.0 < high < 8.2


def test_a_run_that_goes_on_says_so_in_the_legend():
  run = recorded_run.RecordedRun("a", _evaluations([9.0]), step=10)
  axes = curves.draw([run], None).axes[0]
  assert axes.get_legend_handles_labels()[1] == ["a (at step 10)"]


def test_a_schedule_is_drawn_as_wide_as_its_steps():
  schedule = schedules.mslt(4, 100, num_growing_stages=2, retraining_share=0.2)
  figure = schedule_drawing.draw([("mine", schedule)])
  (axes,) = figure.axes
  assert axes.get_title(loc="left") == "mine"
  assert axes.get_xticks().tolist() == [0, 40, 80, 100]
  # Embeddings and heads beside 2, 4 and 4 layers.
  boxes = axes.patches
  assert len(boxes) == 3 * 2 + 2 + 4 + 4
  frozen = [box for box in boxes if box.get_hatch()]
  # In stage 2: the embeddings and the lower two layers.
  assert [round(box.get_x() + box.get_width() / 2) for box in frozen] == [
    60
  ] * 3
  assert [round(box.get_y() + 0.42) for box in frozen] == [0, 1, 2]
  texts = [text.get_text() for text in axes.texts]
  assert texts == [
    *["stage 1", "copy of layer 0", "copy of layer 1", "stage 2", "stage 3"]
  ]


def test_no_text_of_a_schedule_lies_on_another():
  named = [
    ("stacking", schedules.progressive_stacking(8, 1_000_000)),
    ("mslt", schedules.mslt(8, 1_000_000, num_growing_stages=4)),
  ]
  figure = schedule_drawing.draw(named)
  canvas = backend_agg.FigureCanvasAgg(figure)
  canvas.draw()
  renderer = canvas.get_renderer()
  for axes in figure.axes:
    boxes = [
      text.get_window_extent(renderer)
      for text in [
        *axes.texts,
        *axes.get_xticklabels(),
        *axes.get_yticklabels(),
      ]
      if text.get_text()
    ]
    for place, box in enumerate(boxes):
      assert not any(box.overlaps(other) for other in boxes[place + 1 :])
