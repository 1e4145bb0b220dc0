"""Run the notebook and save what its cells print and draw: `python docs/run_notebook.py`.

Jupyter is not needed. `python docs/run_notebook.py --check` runs all cells and writes nothing; the tests call
`run_cells` for that. The notebook writes its files into the current folder, so this works in a temporary one.
"""

import argparse
import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
DPI = 72


def run_cells(notebook: dict[str, Any]) -> None:
    """Run all code cells in the current folder, and replace their outputs.

    A cell's output is what it printed, the value of its last line unless a semicolon ends it, and the
    figures that it drew.
    Raises whatever a cell raises.
    """
    matplotlib.use("agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = _run("".join(cell["source"]), names, count)


def _run(source: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The outputs of one cell, run in `names`, in nbformat 4."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    label, printed, value = f"<cell {count}>", io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, label, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), label, "eval"), names)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        outputs.append({"output_type": "execute_result", "execution_count": count, "data": data, "metadata": {}})
    return outputs + _figures()


def _figures() -> list[dict[str, Any]]:
    """The open figures as PNG; they are closed."""
    import matplotlib.pyplot as plt

    outputs = []
    for number in plt.get_fignums():
        figure, buffer = plt.figure(number), io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
        title = figure.axes[0].get_title() if figure.axes else "figure"
        data = {"image/png": base64.b64encode(buffer.getvalue()).decode() + "\n", "text/plain": [title]}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    plt.close("all")
    return outputs


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the notebook, and save the outputs of its cells.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            run_cells(notebook)
        finally:
            os.chdir(before)
    if not args.check:
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        NOTEBOOK.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
