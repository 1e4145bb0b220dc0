"""What mkdocs does beside the pages: the notebook as a page, and a check that the API is documented."""

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
NOTEBOOK, NOTEBOOK_PAGE, API_PAGE = "notebook.ipynb", "notebook.md", "python.md"
PACKAGE = Path("pickeropt")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds `notebook.md`, made of `notebook.ipynb` with the outputs that it was saved with."""
    notebook = json.loads((Path(config.docs_dir) / NOTEBOOK).read_text(encoding="utf-8"))
    files.append(File.generated(config, NOTEBOOK_PAGE, content=notebook_page(notebook)))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Warns, which fails a strict build, where a public name has no entry on the API page."""
    if page.file.src_uri == API_PAGE:
        root = Path(config.config_file_path).parent / PACKAGE
        for name in public_names(root / "__init__.py"):
            if f'id="{PACKAGE}.{name}"' not in content:
                LOG.warning("%s: %s.%s is in __all__ and has no entry", API_PAGE, PACKAGE, name)
    return content


def public_names(init: Path) -> list[str]:
    """The names in `__all__`, a literal list or tuple, of a package's `__init__.py`; [] without one."""
    for statement in ast.parse(init.read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return [str(name) for name in ast.literal_eval(statement.value)]
    return []


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
    """One output as Markdown: a picture, else a table, else text."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output.get("data", {})
    if "image/png" in data:
        image = re.sub(r"\s", "", "".join(data["image/png"]))
        text = html.escape("".join(data.get("text/plain", "picture")))
        return f'<img alt="{text}" src="data:image/png;base64,{image}">'
    text = "".join(data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text else ""
