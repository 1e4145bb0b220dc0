"""What mkdocs does beside the pages: the notebook as a page, and an entry for every public name.

The public names are those of `pickeropt.__all__`, read from the source without importing it.
`docs/griffe_house.py` turns their docstrings into Markdown.
"""

import ast
import html
import json
import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LOG = logging.getLogger("mkdocs.hooks.pickeropt")
NOTEBOOK, NOTEBOOK_PAGE = "notebook.ipynb", "notebook.md"
API_PAGE, API_MARKER = "python.md", "<!-- public names -->"
INIT = Path("pickeropt/__init__.py")
ORDER = (
    *("read_picks", "read_labels", "finetune", "Model", "prune"),
    *("rethreshold", "evaluate", "check", "convert"),
)
"""The public names in the order in which they are used; others follow as they stand in `__all__`."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `notebook.md`, made of `notebook.ipynb` with the outputs that it was saved with."""
    notebook = json.loads((Path(config.docs_dir) / NOTEBOOK).read_text(encoding="utf-8"))
    files.append(File.generated(config, NOTEBOOK_PAGE, content=notebook_page(notebook)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put an entry for each public name where the API page has its marker.

    A page without neighbours in the navigation gets the width of their list.
    """
    if page.parent is None:
        page.meta["hide"] = ["navigation"]
    if page.file.src_uri != API_PAGE:
        return markdown
    root = Path(config.config_file_path).parent
    return markdown.replace(API_MARKER, "\n\n".join(api_entries((root / INIT).read_text(encoding="utf-8"))))


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Keep a value and its spread on one line of a table."""
    return re.sub(r"(<td[^>]*>[^<]*?) ± ", r"\1&nbsp;±&nbsp;", content)


def api_entries(source: str) -> list[str]:
    """A block of mkdocstrings for each name in `__all__` of a package's `__init__.py`.

    Each name is looked up in the imports, also those under TYPE_CHECKING, so that `pickeropt.prune` is the
    function and not the subpackage. A name without an import is reported, which fails a strict build.
    """
    tree = ast.parse(source)
    names: list[str] = []
    origins: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            origins |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            names = [str(name) for name in ast.literal_eval(node.value)]
    for name in names:
        if name not in origins:
            LOG.warning("%s: %s is in __all__ and not imported; import it under TYPE_CHECKING", INIT, name)
    ordered = sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    block = "::: {origin}\n    options:\n      heading: {name}\n      toc_label: {name}"
    return [block.format(origin=origins[name], name=name) for name in ordered if name in origins]


def notebook_page(notebook: dict[str, Any]) -> str:
    """Markdown of the notebook's cells: text, code, and each saved output below its code."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code":
            parts.append(f"```python\n{source}\n```")
            parts += [_output(output) for output in cell["outputs"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def _output(output: dict[str, Any]) -> str:
    """One output as Markdown: a picture, else text."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        image = re.sub(r"\s", "", "".join(data["image/png"]))
        text = html.escape("".join(data.get("text/plain", "picture")))
        return f'<img alt="{text}" src="data:image/png;base64,{image}">'
    text = "".join(data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text else ""
