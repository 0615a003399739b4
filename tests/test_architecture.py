"""The shape of lcm/: which way imports point, what the light runtime loads, how long modules and functions are.

A module may import only from modules before it in ROOMS: from the rooms above its own, and inside its room from those
to its left. A room's `__init__` comes after its modules. Imports inside functions count too.
"""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lcm"

# A new module is added here, where its imports allow. A room without modules is a single file.
ROOMS = {
    "errors": [],
    "folders": [],
    "config": [],
    "run_folder": [],
    "data": [
        *("redaction", "address", "cached", "remote"),
        *("files", "tables", "metadata", "documents", "formats", "splits", "caption_files", "places", "captions"),
        *("vocabulary", "word_vectors", "keywords", "headers", "images"),
        *("labels", "listing", "scenery", "drawing", "samples", "sources", "own"),
    ],
    "contributions": [
        *("text", "numbers", "target", "records", "failures", "files", "database", "outbox", "reader"),
        *("store", "copying", "approvals", "exchange", "backup", "layout", "mirror", "fetching"),
    ],
    "encoding": ["conversion", "runtime", "encoders", "parallel", "store", "views", "features", "prepared"],
    "captioning": [
        *("decoding", "confidence", "choosing", "tagging", "dual_encoder", "pretrained", "clip", "bundle"),
        *("model_card", "scorers", "writing", "describing", "copies", "signatures", "memory"),
        *("blip", "nearest", "captioners", "self_test", "versions"),
    ],
    "evaluation": [
        *(
            "word_errors",
            "meteor",
            "bleu",
            "cider",
            "metrics",
            "habits",
            "resampling",
            "calibration",
            "retrieval",
            "tag_quality",
        ),
        "tag_report",
        *("captioner_result", "comparison", "published", "tables"),
        *("plots", "pictures", "pages", "looking", "results"),
        *("comparison_plots", "comparison_images", "comparison_tables", "comparison_figures", "comparison_parts"),
        "comparison_page",
    ],
    "retraining": ["contributed", "near_copies", "placement", "guards", "gate"],
    "models": ["quiet", "merge", "attention", "transformer", "dual_encoder"],
    "training": [
        *(
            "batches",
            "compiled",
            "checkpoint",
            "state",
            "epochs",
            "loss",
            "selection",
            "fit",
            "reinforce",
        ),
        *("weights", "continuing", "pairs", "contrastive", "half", "export"),
    ],
    "benchmark": [
        *("timing", "process", "machine", "arithmetic", "profile", "prefixes", "plain", "losses", "training"),
        *("encoding", "original", "serving", "answer_parts", "growth", "installed", "plots", "report"),
    ],
    "operations": [
        *("pipeline", "answers", "folder", "comparing"),
        *("history", "catalogue", "publishing", "starting", "retraining", "gating", "summary"),
    ],
    "service": [
        *("settings", "refusals", "request_log", "json_body", "base64_images", "payload", "pool", "answers"),
        *("heap", "model_watch", "learning", "state", "web", "parsing", "connections", "supervisor", "server"),
    ],
    "dashboard": ["answer", "desk", "looking", "parts", "photo", "waiting", "quality", "page"],
    "cli": ["printing", "run", "caption", "serve", "contributions", "models", "summary"],
}
DOORS = ["lcm", "lcm.__main__"]  # what users open; nothing inside may import them
ORDER = [f"lcm.{room}.{module}".rstrip(".") for room, modules in ROOMS.items() for module in [*modules, ""]] + DOORS

LIGHT_ROOMS = [
    "errors",
    "folders",
    "config",
    "run_folder",
    "data",
    "contributions",
    "encoding",
    "captioning",
    "evaluation",
    "retraining",
    "service",
    "dashboard",
]
HEAVY = ["tensorflow", "keras", "torch"]
MAX_MODULE_LINES = 250
MAX_FUNCTION_LINES = 45


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {
    module_name(path): (path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported_modules(name: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the full name of every module of lcm that module `name` imports, anywhere in it."""
    path, tree = TREES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            targets = [target_of_from(base, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            targets = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        else:
            continue
        yield from ((node.lineno, str(target)) for target in targets if str(target).split(".")[0] == "lcm")


def target_of_from(base: str, attribute: str) -> str:
    """Return the module that `from base import attribute` needs."""
    if f"{base}.{attribute}" in TREES:
        return f"{base}.{attribute}"
    return "lcm.errors" if (base, attribute) == ("lcm", "__version__") else base  # a constant: no import at all


def test_the_table_names_every_module_and_no_other():
    assert set(TREES) - set(ORDER) == set(), "add these to ROOMS"
    assert set(ORDER) - set(TREES) == set(), "take these out of ROOMS"


@pytest.mark.parametrize("name", TREES)
def test_imports_point_one_way(name):
    assert name in ORDER, "add it to ROOMS"
    allowed = ORDER[: ORDER.index(name)]
    wrong = [f"line {line} imports {target}" for line, target in imported_modules(name) if target not in allowed]
    assert wrong == [], f"{name} may import only what stands before it in ROOMS"


def test_the_light_runtime_loads_no_training_framework():
    light = [name for name in TREES if name == "lcm" or name.split(".")[1] in LIGHT_ROOMS]
    script = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module(name)
    loaded = [heavy for heavy in {HEAVY!r} if heavy in sys.modules]
    if loaded:
        sys.exit(f"importing {{name}} loads {{', '.join(loaded)}}")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modules_are_short():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, (path, _) in TREES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_MODULE_LINES} == {}


def test_functions_are_short():
    lengths = {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name, (_, tree) in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}
