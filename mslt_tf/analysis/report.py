"""The comparison as one HTML page, and as Markdown. Pure: text out.

The page holds everything it shows; it loads nothing and runs no script.
"""

import dataclasses
import html
import re
from collections.abc import Sequence

from mslt_tf.glue import tables as tables_lib

_TITLE = "Comparison of pre-training runs"
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff;
  max-width: 1120px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem;
  border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid #e3e3e3; }
th { border-bottom: 2px solid #888; font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.note { color: #555; font-size: .88rem; max-width: 75ch; margin: .4rem 0; }
.problems { background: #fff4e0; border-left: 4px solid #d55e00;
  padding: .5rem 1rem; }
figure { margin: 1rem 0; }
figure svg { width: 100%; height: auto; }
figcaption { color: #555; font-size: .88rem; max-width: 85ch; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .8rem; }
summary { cursor: pointer; padding: .2rem 0; }
@media print { details { display: none; } body { max-width: none; } }
"""


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure.

  Attributes:
    file_name: Of its PNG, for Markdown.
    svg: Its SVG document.
    caption: What it shows.
  """

  file_name: str
  svg: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading with what stands below it."""

  heading: str
  pictures: tuple[Picture, ...] = ()
  tables: tuple[tables_lib.Table, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
  """What the report says.

  Attributes:
    verdict: Sentences that stand first.
    problems: What keeps it from being whole, a line each.
    sections: In order.
    configs: YAML texts by the runs' names.
  """

  verdict: Sequence[str]
  problems: Sequence[str]
  sections: Sequence[Section]
  configs: Sequence[tuple[str, str]]


def as_html(report: Report) -> str:
  """Returns a page that needs no other file and no network."""
  parts = [f"<h1>{_TITLE}</h1>"]
  parts += [f"<p>{html.escape(each)}</p>" for each in report.verdict]
  if report.problems:
    lines = "".join(f"<li>{html.escape(each)}</li>" for each in report.problems)
    parts.append(
      f'<div class="problems"><b>What is missing</b><ul>{lines}</ul></div>'
    )
  for section in report.sections:
    parts.append(f"<h2>{html.escape(section.heading)}</h2>")
    parts += [_figure(each) for each in section.pictures]
    parts += [_table(each) for each in section.tables]
  if report.configs:
    parts.append("<h2>Configs</h2>")
  parts += [
    f"<details><summary>{html.escape(name)}</summary>"
    f"<pre>{html.escape(text)}</pre></details>"
    for name, text in report.configs
  ]
  body = "\n".join(parts)
  return (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{_TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n"
    f"<body>\n{body}\n</body>\n</html>\n"
  )


def as_markdown(report: Report) -> str:
  """Returns the same but for the configs; figures are files beside it."""
  parts = [f"# {_TITLE}", *report.verdict]
  if report.problems:
    lines = "\n".join(f"- {each}" for each in report.problems)
    parts.append(f"What is missing:\n\n{lines}")
  for section in report.sections:
    parts.append(f"## {section.heading}")
    parts += [
      f"![{each.caption}]({each.file_name})" for each in section.pictures
    ]
    parts += [tables_lib.as_markdown([each]).strip() for each in section.tables]
  return "\n\n".join(parts) + "\n"


def _figure(picture: Picture) -> str:
  # Of an SVG document only the element belongs into a page.
  element = picture.svg[picture.svg.index("<svg") :]
  element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
  caption = html.escape(picture.caption)
  label = html.escape(picture.caption, quote=True)
  element = element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
  return f"<figure>{element}<figcaption>{caption}</figcaption></figure>"


def _table(table: tables_lib.Table) -> str:
  head = "".join(f"<th>{html.escape(each)}</th>" for each in table.header)
  rows = "\n".join(
    "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
    for row in table.rows
  )
  notes = "".join(
    f'<p class="note">{html.escape(each)}</p>' for each in table.notes
  )
  body = ""
  if table.rows:
    body = (
      f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
      f"<tbody>{rows}</tbody></table></div>"
    )
  return f"<h3>{html.escape(table.title)}</h3>{body}{notes}"
