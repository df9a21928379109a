"""The rules of the house that a machine can check: who may import whom, and what needs no framework."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "data_tools")
FRAMEWORKS = {"mindspore", "torch", "paddle", "transformers", "onnxruntime", "tensorflow"}
# What data_tools may use of models.common: nothing that knows a model.
COMMON_BASE = {
    "models.common.errors",
    "models.common.files",
    "models.common.cli",
    "models.common.npy_file",
    "models.common.progress",
    "models.common.tagging",
}


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def imports_of(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


FLOWS = ("models.common.finetune", "models.common.pretrain")  # of commands


def test_common_knows_no_model_and_only_its_commands_know_the_data_tools():
    for path in modules():
        name = dotted(path)
        if name.startswith("models.common"):
            for imported in imports_of(path):
                if not name.startswith(FLOWS):
                    assert not imported.startswith(("data_tools", *FLOWS)), f"{name}: {imported}"
                assert not imported.startswith("models.") or imported.startswith("models.common"), f"{name}: {imported}"


def test_models_do_not_import_each_other():
    for path in modules():
        parts = dotted(path).split(".")
        if parts[0] == "models" and len(parts) > 2 and parts[1] != "common":
            for imported in imports_of(path):
                other = imported.split(".")
                if other[0] == "models" and len(other) > 1:
                    assert other[1] in ("common", parts[1]), f"{path}: {imported}"


def test_data_tools_use_only_the_base_of_common():
    for path in modules():
        if dotted(path).startswith("data_tools"):
            for imported in imports_of(path):
                if imported.startswith("models"):
                    assert imported in COMMON_BASE, f"{path}: {imported}"


def test_nothing_of_the_project_imports_tests_or_benchmarks():
    for path in modules():
        assert not any(name.split(".")[0] in ("tests", "benchmarks") for name in imports_of(path)), path


# What every family has; beside them the command for questions, which has the name that its original gave it.
FAMILIES = {"bert": "run_squad", "ernie": "run_mrc"}
OF_A_FAMILY = (
    "config", "evaluate", "export", "postprocess", "predict", "preprocess", "pretrain_eval", "run_classifier",
    "run_ner", "run_pretrain",
)  # fmt: skip


def test_families_have_the_same_files():
    for family, questions in FAMILIES.items():
        folder = REPOSITORY / "models" / family
        files = {path.stem for path in folder.glob("*.py")}
        assert files >= {*OF_A_FAMILY, "quantize", questions}
        assert all((folder / name).is_file() for name in ("networks.yaml", "recipes.yaml"))


@pytest.mark.parametrize(
    "module",
    [
        *(f"models.{family}.{name}" for family, questions in FAMILIES.items() for name in (*OF_A_FAMILY, questions)),
        "models.bert.bert_process",
        "models.bert.migrate",
        "models.common.config",
        "models.common.export.manifest",
        "models.common.launch.rank_commands",
        "models.common.launch.rank_table",
        "models.common.launch.supervise",
        "models.common.metrics.classification",
        "models.common.metrics.cluener",
        "models.common.metrics.cmrc",
        "models.common.metrics.entities",
        "models.common.metrics.squad",
        "models.common.packing",
        "models.common.tagging",
        "models.common.optim.settings",
        "models.common.tasks.classification",
        "models.common.tasks.pretrain",
        "models.common.tasks.span",
        "models.common.tasks.tagging",
        "models.common.weights.reading",
        "data_tools.convert",
        "data_tools.feature_store",
    ],
)
def test_no_framework_is_imported_before_it_is_needed(module):
    code = f"import sys, {module}; print(sorted({FRAMEWORKS!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_stay_small():
    sources = [path for folder in (*PACKAGES, "tests", "benchmarks") for path in (REPOSITORY / folder).rglob("*.py")]
    sources += [path for path in (REPOSITORY / "ascend310_infer").rglob("*") if path.suffix in (".cc", ".h")]
    for path in sources:
        if "build" not in path.parts:
            assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_no_committed_file_names_this_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    forbidden = ("/" + "work/", "/" + "root/", "pypi" + ".org", "npmjs" + ".org", "debian" + ".org")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.suffix in (".py", ".sh", ".cc", ".h", ".md", ".toml", ".yaml", ".txt", "") and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not any(word in text for word in forbidden), f"{name} names this machine or a registry"
