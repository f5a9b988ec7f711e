"""Holds imports, BUILD, requirements and the top level against the layout."""

import ast
import functools
import graphlib
import importlib.metadata
import pathlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# What each layer may import, bottom to top. A layer is a top module or a
# package of mslt_tf, or bin; one that stands in its own set is a package whose
# modules see each other. A new top module or package gets a line here.
_PURE = {
  "errors", "file_lock", "schedules", "costs", "growth", "written_numbers",
  "processor",
}  # fmt: skip
_DATA = {
  "data", "data/text", "data/examples", "data/reading", "data/building",
  "data/verification",
}  # fmt: skip
_MIDDLE = {*_DATA, "glue", "models", "optimization", "training"}
_TOP = {
  "config", "outline", "assembly", "frozen_states", "stage_training",
  "pretrain", "finetune", "benchmark", "finished_model", "initial_weights",
  "tensorboard_text",
}  # fmt: skip
_BESIDE = {"interop", "analysis", "planning", "reproduction"}
MAY_IMPORT = {
  "errors": set(),
  "file_lock": {"errors"},
  "schedules": {"errors"},
  "costs": {"errors", "schedules"},
  "growth": {"errors", "schedules"},
  "written_numbers": set(),
  "processor": set(),
  "data": {"errors"},
  "data/text": {"errors", "data/text"},
  "data/examples": {"errors", "data", "data/examples"},
  "data/reading": {"errors", "data", "data/examples", "data/reading"},
  "data/building": {"errors", "file_lock", *_DATA} - {"data/verification"},
  "data/verification": {"errors", *_DATA} - {"data/text", "data/building"},
  "glue": {"errors", "data", "data/text", "data/examples", "glue"},
  "models": {*_PURE, "data/examples", "models"},
  "optimization": {*_PURE, "optimization"},
  "training": {"errors", "file_lock", "data", "training"},
  "interop": {*_PURE, *_MIDDLE, "interop"},
  "analysis": {
    *_PURE,
    *_MIDDLE,
    "config",
    "assembly",
    "finished_model",
    "analysis",
  },
  "config": {"errors", "schedules", "strict_yaml"},
  "strict_yaml": {"errors"},
  "outline": {*_PURE, "config"},
  "assembly": {*_PURE, *_MIDDLE, "config", "outline"},
  "frozen_states": {*_PURE, *_MIDDLE, "config"},
  "stage_training": {
    *_PURE,
    *_MIDDLE,
    "config",
    "outline",
    "assembly",
    "frozen_states",
  },
  "finished_model": {*_PURE, *_MIDDLE, "config", "strict_yaml"},
  "tensorboard_text": {*_PURE, "training", "config", "outline"},
  "initial_weights": {*_PURE, *_MIDDLE, "config", "finished_model"},
  "pretrain": {*_PURE, *_MIDDLE, *_TOP, "analysis"},
  "finetune": {*_PURE, *_MIDDLE, *_TOP},
  "benchmark": {*_PURE, *_MIDDLE, *_TOP},
  "planning": {*_PURE, "config", "outline", "planning"},
  "reproduction": {
    "errors",
    "file_lock",
    "costs",
    "written_numbers",
    "glue",
    "training",
    "config",
    "analysis",
    "reproduction",
  },
  "bin": {*_PURE, *_MIDDLE, *_TOP, *_BESIDE, "bin"},
}

WITHOUT_TENSORFLOW = {
  "mslt_tf/analysis/comparison",
  "mslt_tf/analysis/comparison_tables",
  "mslt_tf/analysis/curves",
  "mslt_tf/analysis/fine_tuned",
  "mslt_tf/analysis/recorded_run",
  "mslt_tf/analysis/report",
  "mslt_tf/analysis/schedule_drawing",
  "mslt_tf/config",
  "mslt_tf/costs",
  "mslt_tf/data/examples/masking",
  "mslt_tf/data/examples/sentence_pairs",
  "mslt_tf/errors",
  "mslt_tf/file_lock",
  "mslt_tf/glue/batches",
  "mslt_tf/glue/examples",
  "mslt_tf/glue/metrics",
  "mslt_tf/glue/paper",
  "mslt_tf/glue/protocol",
  "mslt_tf/glue/results",
  "mslt_tf/glue/rows",
  "mslt_tf/glue/tables",
  "mslt_tf/glue/tasks",
  "mslt_tf/growth",
  "mslt_tf/outline",
  "mslt_tf/planning/planner",
  "mslt_tf/processor",
  "mslt_tf/reproduction/jobs",
  "mslt_tf/reproduction/result_tables",
  "mslt_tf/schedules",
  "mslt_tf/strict_yaml",
  "mslt_tf/written_numbers",
}

TOP_LEVEL = {
  # Git, CI and Bazel.
  ".bazelignore", ".bazelrc", ".ci", ".gitignore", "BUILD", "WORKSPACE",
  "bazel.bzl",
  # Packaging.
  "LICENSE", "pyproject.toml", "requirements.txt",
  # The project.
  "README.md", "bin", "configs", "docs", "mslt_tf", "tests",
}  # fmt: skip

VAGUE_NAMES = {"utils", "util", "helpers", "common", "misc", "base"}

RULES = {"mslt_tf": "py_library", "bin": "py_binary", "tests": "pytest_test"}


def _modules(*folders: str) -> dict[str, ast.Module]:
  """Returns the syntax of every module, by its path without `.py`."""
  return {
    path.relative_to(ROOT).with_suffix("").as_posix(): ast.parse(
      path.read_text()
    )
    for folder in folders
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "__init__.py"
  }


def _imported_names(tree: ast.Module) -> Iterator[str]:
  """Yields dotted names; of `from a import b` both `a` and `a.b`."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"line {node.lineno}: a relative import"
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imports_of_ours(tree: ast.Module) -> set[str]:
  """Returns the paths without `.py` of the modules of ours imported."""
  paths = {name.replace(".", "/") for name in _imported_names(tree)}
  # A binary's folder is on its path: it says `import command_line`.
  candidates = paths | {f"bin/{path}" for path in paths}
  return {
    path for path in candidates if (ROOT / path).with_suffix(".py").is_file()
  }


def _layer(path: str) -> str:
  first, second, *rest = path.split("/")
  if first != "mslt_tf":
    return first
  return f"{second}/{rest[0]}" if second == "data" and rest[1:] else second


def _targets() -> dict[str, tuple[str, dict]]:
  """Returns the rule and the arguments of each target in BUILD, by name."""
  targets = {}
  for statement in ast.parse((ROOT / "BUILD").read_text()).body:
    if not isinstance(statement, ast.Expr) or not isinstance(
      statement.value, ast.Call
    ):
      continue
    call = statement.value
    if call.func.id not in {"py_library", "py_binary", "pytest_test"}:
      continue
    arguments = {
      each.arg: ast.literal_eval(each.value) for each in call.keywords
    }
    name = arguments["name"]
    assert name not in targets, f"BUILD: target {name!r} stands there twice."
    targets[name] = (call.func.id, arguments)
  return targets


MODULES = _modules("mslt_tf", "bin")
TESTS = _modules("tests")
TARGETS = _targets()


@pytest.mark.parametrize("path", MODULES)
def test_imports_point_down_only(path):
  layer = _layer(path)
  assert layer in MAY_IMPORT, f"{path}.py: {layer!r} is no layer of MAY_IMPORT."
  for imported in sorted(_imports_of_ours(MODULES[path])):
    assert _layer(imported) in MAY_IMPORT[layer], (
      f"{path}.py imports {imported}.py, but {layer!r} may import only"
      f" {sorted(MAY_IMPORT[layer])}."
    )


def test_imports_have_no_cycle():
  graph = {path: _imports_of_ours(tree) for path, tree in MODULES.items()}
  graphlib.TopologicalSorter(graph).prepare()


def test_modules_run_without_tensorflow():
  names = [path.replace("/", ".") for path in sorted(WITHOUT_TENSORFLOW)]
  code = (
    "import importlib, sys\n"
    "heavy = {'tensorflow', 'keras', 'official', 'tensorflow_text'}\n"
    f"for name in {names}:\n"
    "  importlib.import_module(name)\n"
    "  if loaded := heavy & set(sys.modules):\n"
    "    sys.exit(f'{name} loads {loaded}.')"
  )
  finished = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("path", [*MODULES, *TESTS])
def test_build_target_matches_module(path):
  if path == "tests/architecture_test":
    return  # It reads the whole checkout, which no target sees.
  rule = RULES[path.split("/")[0]]
  if path in {"bin/command_line", "tests/conftest"}:
    rule = "py_library"
  imported = _imports_of_ours({**MODULES, **TESTS}[path])
  deps = sorted(f":{each}" for each in imported)
  expected = f"{rule}(name={path!r}, srcs={[path + '.py']}, deps={deps})"
  assert path in TARGETS, f"BUILD has no target for {path}.py: add {expected}"
  actual_rule, arguments = TARGETS[path]
  assert (actual_rule, arguments["srcs"], arguments.get("deps", [])) == (
    rule,
    [f"{path}.py"],
    deps,
  ), f"BUILD's target of {path}.py differs from its imports: {expected}"


def test_every_build_target_has_its_module():
  assert set(TARGETS) <= {*MODULES, *TESTS}


def test_packages_hold_no_code():
  # BUILD leaves `__init__.py` out: Bazel makes empty ones.
  for path in sorted((ROOT / "mslt_tf").rglob("__init__.py")):
    body = ast.parse(path.read_text()).body
    assert all(
      isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
      for each in body
    ), f"{path.relative_to(ROOT)} holds code."


@pytest.mark.parametrize("path", MODULES)
def test_imported_packages_are_dependencies(path):
  pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  declared = {
    _normal(requirement.split("==")[0].split("[")[0])
    for group in (
      pyproject["dependencies"],
      *pyproject["optional-dependencies"].values(),
    )
    for requirement in group
  }
  distributions = _distributions()
  for name in sorted({n.split(".")[0] for n in _imported_names(MODULES[path])}):
    if (
      name in sys.stdlib_module_names
      or name == "mslt_tf"
      or f"bin/{name}" in MODULES
    ):
      continue
    owners = {_normal(each) for each in distributions.get(name, [name])}
    assert owners & declared, (
      f"{path}.py imports {name}, which pyproject.toml does not name."
    )


def test_pyproject_repeats_the_pins():
  pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  imported, _ = (ROOT / "requirements.txt").read_text().split("# What those")
  pins = [
    line.split("#")[0].strip() for line in imported.splitlines() if "==" in line
  ]
  assert pyproject["dependencies"] == pins


def test_file_names_say_what_is_inside():
  vague = [
    path
    for path in [*MODULES, *TESTS]
    if VAGUE_NAMES & set(path.removesuffix("_test").split("/"))
  ]
  assert not vague


def test_top_level_holds_only_what_belongs_there():
  assert _tracked_top_level() - TOP_LEVEL == set()


def _tracked_top_level() -> set[str]:
  listing = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
  )
  if listing.returncode == 0:
    return {line.split("/")[0] for line in listing.stdout.splitlines()}
  ignored = {".venv", ".git", "quickstart"}
  return {
    path.name
    for path in ROOT.iterdir()
    if path.name not in ignored
    and not path.name.startswith("bazel-")
    and not path.name.endswith((".egg-info", "_cache"))
    and path.name != "__pycache__"
  }


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
  return importlib.metadata.packages_distributions()


def _normal(distribution: str) -> str:
  return distribution.lower().replace("_", "-").replace(".", "-")
