"""What BUILD and WORKSPACE need: pytest as a rule, .venv as the Python.

Bazel's own tools load the rules of C++ and Java from repositories on GitHub.
Nothing here is C++ or Java, so the native rules stand in for them and nothing
is downloaded.
"""

_NATIVE_RULES = {
    "cc": [
        "cc_binary",
        "cc_import",
        "cc_library",
        "cc_test",
        "cc_toolchain",
        "cc_toolchain_suite",
    ],
    "java": [
        "java_binary",
        "java_import",
        "java_library",
        "java_package_configuration",
        "java_plugin",
        "java_runtime",
        "java_test",
        "java_toolchain",
    ],
}

_PYTHON = """
load("@bazel_tools//tools/python:toolchain.bzl", "py_runtime_pair")

py_runtime(
    name = "runtime",
    interpreter_path = "{python}",
    python_version = "PY3",
)

py_runtime_pair(
    name = "pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    toolchain = ":pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)
"""

_PYTEST_MAIN = """
import sys

import pytest

sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]]))
"""

def _native_rules(context):
    language = context.attr.language
    context.file(language + "/BUILD")
    context.file(language + "/defs.bzl", "\n".join([
        "{rule} = native.{rule}".format(rule = rule)
        for rule in _NATIVE_RULES[language]
    ]))

native_rules = repository_rule(
    implementation = _native_rules,
    attrs = {"language": attr.string(mandatory = True)},
)

def _no_coverage(context):
    context.file("BUILD", """
filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
""")

no_coverage = repository_rule(implementation = _no_coverage)

def _venv_python(context):
    root = context.path(Label("//:WORKSPACE")).dirname
    python = str(root) + "/.venv/bin/python"
    context.file("pytest_main.py", _PYTEST_MAIN)
    context.file(
        "BUILD",
        "exports_files(['pytest_main.py'])" + _PYTHON.format(python = python),
    )

venv_python = repository_rule(implementation = _venv_python)

def pytest_test(name, srcs, deps, data = [], **kwargs):
    """A py_test that runs the one file of `srcs` under pytest."""
    native.py_test(
        name = name,
        srcs = srcs + ["@venv_python//:pytest_main.py"],
        main = "@venv_python//:pytest_main.py",
        args = srcs,
        data = data + ["pyproject.toml"],
        deps = deps,
        **kwargs
    )
