"""The book as a static site: `make site`. Nothing is executed; the pages are the committed notebooks and docs.

The source folder is the repository, so that links between notebooks, docs and README work here as they do there.
"""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qlung.book import lessons  # noqa: E402 (the line above finds it)


def repository() -> str:
    """Web address of the repository that Colab and Binder can open: from the environment, else the GitHub remote."""
    if named := os.environ.get("QLUNG_REPOSITORY") or os.environ.get("GITHUB_REPOSITORY"):
        return named if "://" in named else f"https://github.com/{named}"
    git = ["git", "-C", str(ROOT), "remote", "get-url", "origin"]
    remote = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    found = re.fullmatch(r"(?:https://|git@)github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?", remote)
    return f"https://github.com/{found[1]}" if found else ""


# A browser prints the handout; without one the site has it as a page only.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

project = "QLung companion"
author = "The QLung companion authors"
project_copyright = author
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/[0-9]*.ipynb", "notebooks/exercises/[0-9]*.ipynb", "README.md",
                    "RESULTS.md", "data/README.md", "network/README.md", "figures/*/results.md"]  # fmt: skip
# Folders that are not walked through
exclude_patterns = [".*", "qlung", "tests", "tools", "benchmarks", "runs", "site", "docs/_*", "data/*/**", "**/mine",
                    "**/.ipynb_checkpoints", "*.egg-info"]  # fmt: skip
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]

# Text and notebooks
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
nb_mime_priority_overrides = [("html", "image/png", 5)]
myst_enable_extensions = ["amsmath", "dollarmath", "attrs_inline", "substitution"]
myst_substitutions = {"handout": '<a href="handout.pdf">PDF</a>' if CHROMIUM else "page (print it from the browser)"}
myst_heading_anchors = 4
suppress_warnings = ["myst.strikethrough"]

# API pages
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False

# Look. Everything comes from the site's own folder.
html_theme = "sphinx_book_theme"
html_title = project
html_context = {"default_mode": "auto"}
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_extra_path = ["_root"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_show_sphinx = False
html_copy_source = True
html_last_updated_fmt = None
mathjax_path = "mathjax/tex-chtml.js"
html_theme_options = {
    "repository_url": repository(),
    "repository_branch": "main",
    "use_repository_button": bool(repository()),
    "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org",
                       "notebook_interface": "jupyterlab"} if repository() else {},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "navigation_with_keys": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}  # fmt: skip


def slug(heading: str) -> str:
    """The anchor that MyST, like GitHub, gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


ANCHOR = r"\]\(((?:[\w./-]+\.ipynb)?)#((?:[^()]|\([^()]*\))+)\)"  # of JupyterLab, which keeps capitals and colons


def with_forms(notebook) -> None:
    """Below each question of the exercises a place for a form, and what docs/_static/exercises.js needs for it."""
    bank = lessons.bank()
    asked = {name: exercise.page() for name, exercise in bank["EXERCISES"].items()}
    data = {"exercises": asked, "replies": bank["REPLIES"], "enough": bank["ENOUGH"], "near": bank["NEAR"]}
    for cell in notebook["cells"]:
        if heading := re.match(r"## ([\w-]+):", "".join(cell["source"])):
            cell["source"] = f'{"".join(cell["source"])}\n\n<div data-qlung-exercise="{heading[1]}"></div>'
    text = json.dumps(data).replace("<", "\\u003c")  # no tag ends the script
    first = notebook["cells"][0]
    first["source"] = (f'{"".join(first["source"])}\n\n<div data-qlung-progress></div>\n\n'
                       f'<script type="application/json" id="qlung-exercises">{text}</script>\n'
                       '<script src="../../_static/exercises.js" defer></script>')  # fmt: skip


def read_as_here(app, docname, source):
    """What JupyterLab and GitHub understand, in Sphinx's words: folded cells, anchors, links in outputs, <a id>."""
    if not docname.startswith("notebooks/"):
        source[0] = re.sub(r'<a id="([\w-]+)"></a>', r"[]{#\1}", source[0])
        return
    notebook = json.loads(source[0])
    if docname == "notebooks/exercises/03_exercises":
        with_forms(notebook)
        app.env.note_dependency(str(lessons.ANSWERS), docname=docname)
    for cell in notebook["cells"]:
        if cell["metadata"].get("jupyter", {}).get("source_hidden"):
            cell["metadata"].setdefault("tags", []).append("hide-input")
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            cell["source"] = re.sub(ANCHOR, lambda at: f"]({at[1]}#{slug(at[2].replace('-', ' '))})", text)
        for output in cell.get("outputs", []):
            if text := "".join(output.get("data", {}).get("text/markdown", "")):
                output["data"]["text/markdown"] = re.sub(r"(\]\([\w./]+)\.(?:ipynb|md)\b", r"\1.html", text)
    source[0] = json.dumps(notebook)


def as_restructured_text(app, what, name, obj, options, lines):
    """Docstrings: a separator after the second backtick of `name`(...), and notes "field : text" as a list."""
    lines[:] = [re.sub(r"(?<!`)`([\w.]+)`(?=[\w(\[])", r"``\1``\\ ", line) for line in lines]
    if what == "class" and name.endswith(".Config"):
        lines[:] = [re.sub(r"^ {4}", "  ", re.sub(r"^(\w+) : ", r"- **\1**: ", line)) for line in lines]


SIGNS = {"theta": "θ", "rho": "ρ", "Delta": "Δ", "nabla": "∇", "gamma": "γ", "kappa": "κ", "lambda": "λ", "Vert": "|"}


def plain(label: str) -> str:
    """A label without its LaTeX."""
    label = re.sub(r"\\([a-zA-Z]+) ?", lambda sign: SIGNS.get(sign[1], ""), label)
    return " ".join(re.sub(r"[${}\\]", "", label).split())


def labels(source: str) -> str:
    """What the code of a figure calls it and its axes: file name, titles, axis labels."""
    said, name = {"title": [], "xlabel": [], "ylabel": []}, ""
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return ""
    for call in calls:
        words = [node.value for node in call.args if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        function = getattr(call.func, "attr", "")
        if function == "save" and words:
            name = words[0].split("-", 1)[-1].replace("-", " ")
        given = [(key.arg, key.value.value) for key in call.keywords if isinstance(key.value, ast.Constant)]
        for key, value in [*given, *((function.removeprefix("set_"), word) for word in words)]:
            if key in said and isinstance(value, str) and plain(value):
                said[key].append(plain(value))
    parts = {"": [name], "Panels: ": said["title"], "Horizontal: ": said["xlabel"], "Vertical: ": said["ylabel"]}
    return " ".join(f"{key}{'; '.join(dict.fromkeys(row))}." for key, row in parts.items() if any(row))


class DescribeFigures(SphinxPostTransform):
    """Give every picture of a notebook a text: its section, what its code calls it, and the sentence that follows."""

    default_priority = 500

    def run(self, **_):
        for image in self.document.findall(nodes.image):
            if image.get("alt"):
                continue
            cell = image
            while not isinstance(cell.parent, nodes.section | nodes.document):
                cell = cell.parent
            section, title = cell.parent, cell.parent.next_node(nodes.title)
            code = "\n".join(node.astext() for node in cell.findall(nodes.literal_block) if node.get("language"))
            after = section.children[section.index(cell) + 1 :][:1]
            said = " ".join(after[0].astext().split()) if after and isinstance(after[0], nodes.paragraph) else ""
            sentence = re.split(r"(?<=[.:?])\s", said)[0].rstrip(":")
            where = f"Figure in the section “{title.astext() if title else self.env.docname}”:"
            image["alt"] = " ".join(filter(None, [where, labels(code), sentence]))


def add_lab_button(app, pagename, templatename, context, doctree):
    """Beside Colab and Binder: the notebook in the JupyterLab that `make lab` starts on the reader's machine."""
    if not pagename.startswith("notebooks/") or "header_buttons" not in context:
        return
    lab = {"type": "link", "text": "JupyterLab", "url": f"http://localhost:8888/lab/tree/{pagename}.ipynb",
           "tooltip": "Open in JupyterLab on this computer, after make lab", "icon": "fas fa-flask"}  # fmt: skip
    groups = [button for button in context["header_buttons"] if button.get("label") == "launch-buttons"]
    if not groups:
        groups = [{"type": "group", "tooltip": "Launch this notebook", "icon": "fas fa-rocket", "buttons": [],
                   "label": "launch-buttons"}]  # fmt: skip
        context["header_buttons"].append(groups[0])
    groups[0]["buttons"].insert(0, lab)


def finish(app, error):
    """After the pages: the parts of MathJax that they use (3 of its 24 MB), and the handout as PDF."""
    if error is not None or app.builder.format != "html":
        return
    home = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    out = Path(app.outdir)
    for part in ("output/chtml/fonts", "input/tex/extensions"):
        shutil.copytree(home / part, out / "_static" / "mathjax" / part, dirs_exist_ok=True)
    shutil.copy2(home / "tex-chtml.js", out / "_static" / "mathjax")
    if CHROMIUM:
        command = [CHROMIUM, "--headless", "--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=10000",
                   f"--print-to-pdf={out / 'docs' / 'handout.pdf'}"]  # fmt: skip
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        command += [(out / "docs" / "handout.html").as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def setup(app):
    app.connect("source-read", read_as_here)
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.add_post_transform(DescribeFigures)
    app.connect("html-page-context", add_lab_button, priority=600)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
