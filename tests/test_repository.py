"""What may be committed: no large files, no outputs in notebooks, thin notebooks, nothing of the research data."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
MAX_FILE_BYTES = 5_000_000
SHIPPED_MODEL = "data/models/flickr8k/"
FLICKR_IMAGE = r"[0-9]{6,}_[0-9a-f]{10}\.jpg"
ABSOLUTE_PATH = re.compile(r"/\w|~/|\\\\|[A-Za-z]:[\\/]|file:")
SHELL = {"get_ipython", "subprocess", "system", "popen"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
LOOPS = (ast.For, ast.AsyncFor, ast.While, ast.comprehension)


def git(*arguments: str) -> str:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: there are no tracked files to look at")
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def tracked_files() -> list[str]:
    return [name for name in git("ls-files", "-z").split("\0") if (ROOT / name).is_file()]


def code_cells(path: Path) -> list[tuple[str, list[str]]]:
    """Return source and tags of each code cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in code]


def faults(source: str) -> list[str]:
    """Return what a notebook's code cell holds and may not."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError as error:
        return [f"line {error.lineno} is not plain Python; shell escapes and magics are not allowed"]
    found = [f"line {node.lineno} defines {node.name}" for node in nodes if isinstance(node, DEFINITIONS)]
    found += [f"a loop: {ast.unparse(node).strip().splitlines()[0]}" for node in nodes if isinstance(node, LOOPS)]
    strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    found += [f"an absolute path: {text}" for text in strings if ABSOLUTE_PATH.match(text)]
    names = {getattr(node, field, None) for node in nodes for field in ("id", "attr", "name", "module")}
    return found + [f"a shell escape: {name}" for name in sorted(SHELL & names)]


def test_no_large_file_is_tracked():
    others = [name for name in tracked_files() if not name.startswith(SHIPPED_MODEL)]
    assert [name for name in others if (ROOT / name).stat().st_size > MAX_FILE_BYTES] == []


def test_no_tracked_notebook_has_outputs():
    # The index, not the working tree: who runs a notebook in JupyterLab may still run the tests.
    committed = {name: json.loads(git("show", f":{name}")) for name in tracked_files() if name.endswith(".ipynb")}
    cells = [(name, cell) for name, notebook in committed.items() for cell in notebook["cells"]]
    assert {name for name, cell in cells if cell.get("outputs") or cell.get("execution_count")} == set()


def test_no_flickr_image_is_named():
    assert [name for name in tracked_files() if re.search(FLICKR_IMAGE, name)] == []
    others = [name for name in tracked_files() if not name.startswith("tests/")]
    assert [name for name in others if re.search(FLICKR_IMAGE.encode(), (ROOT / name).read_bytes())] == []


@NOTEBOOKS
def test_a_notebook_only_calls(path):
    cells = code_cells(path)
    assert [fault for source, _ in cells for fault in faults(source)] == []
    assert len([tags for _, tags in cells if "parameters" in tags]) <= 1


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def score(): ...", "line 1 defines score"),
        ("for image in images:\n    show(image)", "a loop: for image in images:"),
        ("data_dir = '/srv/photos'", "an absolute path: /srv/photos"),
        ("os.system('ls')", "a shell escape: system"),
        ("!ls", "line 1 is not plain Python; shell escapes and magics are not allowed"),
        ('report = evaluate(config, split="dev")\nreport.show(title="a / b", figure="figures/best.png")', None),
    ],
)
def test_faults_are_seen(source, fault):
    assert faults(source) == ([fault] if fault else [])
