"""The sizes that the code keeps to: short functions in short modules."""

import json
import subprocess
import sys
from pathlib import Path
from statistics import median, quantiles

SOURCE = Path(__file__).parents[1] / "src" / "sessionapi"
COUNT = """
import ast, json, sys
from pathlib import Path
sizes = {}
for path in Path(sys.argv[1]).rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            name = f"{path.name}:{node.lineno}:{node.name}"
            sizes[name] = body[-1].end_lineno - body[0].lineno + 1 if body else 0
print(json.dumps(sizes))
"""
"""Counted in a process of its own: Python 3.11 can't parse after a RecursionError in the same one."""


def test_functions_are_short():
    sizes = json.loads(subprocess.check_output([sys.executable, "-c", COUNT, str(SOURCE)]))
    assert len(sizes) > 300
    assert median(sizes.values()) <= 7
    assert quantiles(sizes.values(), n=10)[-1] <= 25
    assert [name for name, lines in sizes.items() if lines > 50] == []


def test_modules_are_short():
    sizes = {path.name: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {name: lines for name, lines in sizes.items() if lines > 300} == {}
