"""What may be committed: no large files, no outputs in notebooks, thin notebooks, nothing of the research data."""

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NUMBERED = [path for path in NOTEBOOKS if re.match(r"0\d_", path.name)]

MAX_FILE_BYTES = 5_000_000
SHIPPED_MODEL = "data/models/flickr8k/"
MAX_CODE_CELLS = 12
MAX_CELL_LINES = 10
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
    return [name for name in git("ls-files", "-z").split("\0") if name]


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def source_of(cell: dict) -> str:
    return "".join(cell["source"])


def tags_of(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


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
    sizes = {name: (ROOT / name).stat().st_size for name in tracked_files() if (ROOT / name).is_file()}
    large = {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES}
    assert {name: size for name, size in large.items() if not name.startswith(SHIPPED_MODEL)} == {}


def test_no_tracked_notebook_has_outputs():
    # The index, not the working tree: who runs a notebook in JupyterLab may still run the tests.
    committed = {name: json.loads(git("show", f":{name}")) for name in tracked_files() if name.endswith(".ipynb")}
    ran = {
        name
        for name, notebook in committed.items()
        for cell in notebook["cells"]
        if cell.get("outputs") or cell.get("execution_count")
    }
    assert ran == set()


def test_no_flickr_image_is_named():
    tracked = tracked_files()
    assert [name for name in tracked if re.search(FLICKR_IMAGE, name)] == []
    texts = {name: (ROOT / name).read_bytes() for name in tracked if (ROOT / name).is_file()}
    pattern = re.compile(FLICKR_IMAGE.encode())
    assert {name for name, text in texts.items() if not name.startswith("tests/") and pattern.search(text)} == set()


def test_the_numbered_notebooks_are_here():
    assert {path.stem for path in NUMBERED} >= {"01_prepare", "02_train", "03_evaluate"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_thin(path):
    cells = code_cells(path)
    assert len(cells) <= MAX_CODE_CELLS
    calls = [cell for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]  # those are a line each
    assert [source_of(cell) for cell in calls if len(source_of(cell).splitlines()) > MAX_CELL_LINES] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_only_calls(path):
    assert [fault for cell in code_cells(path) for fault in faults(source_of(cell))] == []


@pytest.mark.parametrize("path", NUMBERED, ids=lambda path: path.stem)
def test_notebook_has_one_parameters_cell(path):
    assert len([cell for cell in code_cells(path) if "parameters" in tags_of(cell)]) == 1


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def score(): ...", "line 1 defines score"),
        ("for image in images:\n    show(image)", "a loop: for image in images:"),
        ("names = [image.name for image in images]", "a loop: for image in images"),
        ("data_dir = '/srv/photos'", "an absolute path: /srv/photos"),
        ("data_dir = 'C:/photos'", "an absolute path: C:/photos"),
        ("import subprocess", "a shell escape: subprocess"),
        ("from subprocess import run", "a shell escape: subprocess"),
        ("os.system('ls')", "a shell escape: system"),
    ],
)
def test_faults_are_seen(source, fault):
    assert faults(source) == [fault]


@pytest.mark.parametrize("source", ["!ls", "%pip install lcm", "files = !ls"])
def test_escapes_are_seen(source):
    assert faults(source) != []


def test_calls_are_no_fault():
    assert faults('report = evaluate(config, split="dev")\nreport.show(title="a / b", figure="figures/best.png")') == []
