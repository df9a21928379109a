"""build.sh makes the program and its tests; unit tests and mutated inputs pass under AddressSanitizer and UBSan."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "ascend310_infer" / "build.sh"
FUZZ_SEED, FUZZ_RUNS = 20, 12000


def build(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", str(BUILD), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def sanitized() -> Path:
    """The folder of the unit tests and the fuzz driver."""
    done = build("--tests")
    assert (done.returncode, done.stderr) == (0, "")
    return Path(done.stdout.strip())


def test_program_is_built_once(program):
    """A second call finds everything up to date and prints the same path."""
    before = program.stat().st_mtime_ns
    done = build()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{program}\n", "")
    assert program.stat().st_mtime_ns == before
    helped = subprocess.run([program, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and helped.stdout.startswith("usage: main ")


def test_unit_tests(sanitized):
    done = subprocess.run(["ctest", "--test-dir", sanitized, "--output-on-failure"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"100% tests passed, 0 tests failed out of (\d+)", done.stdout)[1]) >= 11


def test_sanitizers_are_in_what_is_tested(sanitized):
    for name in ("unit_tests", "fuzz"):
        content = (sanitized / "tests" / name).read_bytes()
        assert b"__asan_report_load" in content and b"__ubsan_handle_" in content


def test_mutated_manifests_and_inputs(sanitized):
    command = [sanitized / "tests" / "fuzz", str(FUZZ_SEED), str(FUZZ_RUNS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # A sanitizer stops the program with its report on standard error, and so does the driver with what it found.
    assert (done.returncode, done.stderr) == (0, "")
    counts = {name: (int(a), int(r)) for name, a, r in re.findall(r"(\w+): (\d+) accepted, (\d+) refused", done.stdout)}
    assert set(counts) == {"manifest", "npy", "bin", "names", "flags", "folder"}
    assert sum(map(sum, counts.values())) == FUZZ_RUNS >= 10_000
    assert sum(counts["manifest"]) == FUZZ_RUNS // 2
    assert all(accepted > 0 and refused > 0 for accepted, refused in counts.values())


def test_the_fuzz_driver_is_repeatable(sanitized):
    run = [subprocess.run([sanitized / "tests" / "fuzz", seed, "600"], capture_output=True) for seed in ("1", "1", "2")]
    assert run[0].stdout == run[1].stdout != run[2].stdout


def test_a_project_that_was_moved_is_built_anew(tmp_path):
    """CMake alone refuses that. The project is a small one: what it compiles does not matter here."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    shutil.copy(BUILD, first)
    (first / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(small NONE)\nset(TESTS OFF CACHE BOOL x)\n"
        "add_custom_target(all_of_it ALL COMMAND touch ${CMAKE_BINARY_DIR}/made)\n"
    )
    for place in (first, second):
        done = subprocess.run(["bash", place / "build.sh", "--tests"], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{place}/build/tests\n", "")
        (place / "build/tests/made").unlink()
        if place == first:
            first.rename(second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--release"], "unknown argument --release"),
        (["--jobs", "many"], "--jobs: many is not a number"),
        (["--build-dir"], "--build-dir needs a value"),
    ],
)
def test_mistakes_on_the_command_line(arguments, message):
    done = build(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


def test_a_home_without_lite_is_named(tmp_path):
    done = build("--build-dir", tmp_path / "build", MS_LITE_HOME=str(tmp_path))
    assert done.returncode == 2
    assert f"error: MS_LITE_HOME={tmp_path}: include/api/model.h or libmindspore-lite.so" in done.stderr


def test_no_compiler_is_named(tmp_path):
    done = build("--tests", "--build-dir", tmp_path / "build", CXX="no-such-compiler")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no-such-compiler is not installed")
