#!/usr/bin/env bash
# Builds the C++ inference program; finds MindSpore Lite by MS_LITE_HOME or fetches its SDK once.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bash ascend310_infer/build.sh [--tests] [--build-dir DIR] [--jobs N]

Builds the program `main` and prints its path.

  --tests          instead build everything that reads files, with its unit tests and the fuzz driver, under
                   AddressSanitizer and UBSan, and print the folder (ctest --test-dir FOLDER runs them); this needs
                   no MindSpore Lite
  --build-dir DIR  default: ascend310_infer/build, for the tests ascend310_infer/build/tests
  --jobs N         compilers at once; default: all cores
  --help           this text

environment:
  MS_LITE_HOME     an unpacked MindSpore Lite package (runtime/lib/libmindspore-lite.so and its headers). Unset: the SDK
                   2.0.0 for x86_64 is fetched from the Python package index with pip, checked against a fixed SHA-256
                   and kept in $XDG_CACHE_HOME/encoder-zoo (or ~/.cache/encoder-zoo); later builds need no network.
  PYTHON           the Python whose pip fetches it; default: the project's .venv, else python3
  CXX              the compiler; GCC 8 or newer
TEXT
}

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"

die() {
  echo "error: $*" >&2
  exit 2
}

# --- MindSpore Lite -------------------------------------------------------------------------------------------------

SDK_VERSION=2.0.0
SDK_WHEEL="mindspore_lite-${SDK_VERSION}-cp37-cp37m-manylinux1_x86_64.whl"
SDK_SHA256=199cd0605cc985b88eddb273db9dfe9000a585ba10ca2292b6b36ebfff07b3ec

find_python() {
  if [[ -n "${PYTHON:-}" ]]; then
    echo "$PYTHON"
  elif [[ -x "$here/../.venv/bin/python" ]]; then
    echo "$here/../.venv/bin/python"
  else
    command -v python3 || die "python3 is needed to fetch MindSpore Lite; install it or set MS_LITE_HOME"
  fi
}

# Prints the folder of the SDK, fetched when the cache does not have it. The wheel is tagged for CPython 3.7 but holds
# the C++ headers and libraries; it is unpacked, not installed. Of its 630 MB only what the CPU and the Ascend plugin
# need is kept.
fetch_sdk() {
  local cache="${XDG_CACHE_HOME:-${HOME:?is unset, set XDG_CACHE_HOME}/.cache}/encoder-zoo"
  local sdk="$cache/mindspore-lite-$SDK_VERSION"
  if [[ ! -d "$sdk" ]]; then
    [[ "$(uname -s)-$(uname -m)" == Linux-x86_64 ]] ||
      die "the SDK on the package index is for Linux on x86_64; set MS_LITE_HOME to a package for $(uname -m)"
    mkdir -p "$cache"
    local python
    python="$(find_python)"
    staging="$(mktemp -d "$cache/.fetch.XXXXXX")"
    trap 'rm -rf "$staging"' EXIT
    echo "fetching MindSpore Lite $SDK_VERSION (169 MB) to $sdk" >&2
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.7 --implementation cp \
      --abi cp37m --platform manylinux1_x86_64 -d "$staging" "mindspore-lite==$SDK_VERSION" >&2 ||
      die "pip could not fetch mindspore-lite==$SDK_VERSION; check the network, or set MS_LITE_HOME"
    echo "$SDK_SHA256  $staging/$SDK_WHEEL" | sha256sum --check --quiet >&2 ||
      die "the fetched $SDK_WHEEL is not the expected file (SHA-256 differs); nothing was installed"
    unpack_sdk "$python" "$staging"
    # Another build may have been faster; its copy is as good.
    mv -T "$staging/sdk" "$sdk" 2>/dev/null || [[ -d "$sdk" ]] || die "$sdk cannot be created"
    rm -rf "$staging"
  fi
  echo "$sdk"
}

unpack_sdk() {
  "$1" - "$2" "$SDK_WHEEL" <<'PYTHON' || die "the wheel could not be unpacked; is the disk full?"
import sys
import zipfile
from pathlib import Path

staging, wheel = Path(sys.argv[1]), sys.argv[2]
LIBRARIES = (
    "mindspore-extendrt_python", "dnnl", "mindspore_converter", "mslite_converter_plugin", "mindspore_core",
    "mindspore_glog", "opencv_core", "opencv_imgcodecs", "opencv_imgproc", "msplugin-ge-litert_python",
    "runtime_convert_plugin_python", "ascend_kernel_plugin_python", "ascend_pass_plugin", "mslite_shared_lib",
)
with zipfile.ZipFile(staging / wheel) as archive:
    for member in archive.namelist():
        folder, _, rest = member.partition("mindspore_lite/")
        wanted = rest.startswith("include/") or rest.split(".")[0] in {f"lib/lib{name}" for name in LIBRARIES}
        if not folder and wanted and not member.endswith("/"):
            target = staging / "sdk" / rest
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(member))
PYTHON
}

# Prints the cmake settings that say where MindSpore Lite is.
lite_settings() {
  local home="${MS_LITE_HOME:-}" include="" library=""
  if [[ -z "$home" ]]; then
    home="$(fetch_sdk)"
  fi
  for candidate in "$home/runtime" "$home"; do
    if [[ -f "$candidate/include/api/model.h" ]]; then
      include="$candidate"
      break
    fi
  done
  for candidate in "$home"/runtime/lib/libmindspore-lite.so "$home"/lib/libmindspore-lite.so \
    "$home"/lib/libmindspore-extendrt_python.so; do
    if [[ -f "$candidate" ]]; then
      library="$candidate"
      break
    fi
  done
  [[ -n "$include" && -n "$library" ]] ||
    die "MS_LITE_HOME=$home: include/api/model.h or libmindspore-lite.so is not below it (nor below runtime/)"
  # A package keeps third-party libraries in folders of their own.
  local folders
  folders="$(find -L "$(cd "$home" && pwd)" -name '*.so*' -printf '%h\n' | sort -u | paste -sd ';')"
  printf '%s\n' "-DMS_LITE_INCLUDE=$(realpath "$include")" "-DMS_LITE_LIB=$(cd "$(dirname "$library")" && pwd)/$(
    basename "$library")" "-DMS_LITE_RPATH=$folders"
}

# --- the build ------------------------------------------------------------------------------------------------------

build_dir="" jobs="$(nproc)" tests=OFF
while (($#)); do
  case "$1" in
    --help | -h) usage && exit 0 ;;
    --tests) tests=ON ;;
    --build-dir | --jobs)
      (($# > 1)) || die "$1 needs a value"
      if [[ "$1" == --jobs ]]; then jobs="$2"; else build_dir="$2"; fi
      shift
      ;;
    *) die "unknown argument $1 (--help lists them)" ;;
  esac
  shift
done
[[ "$jobs" =~ ^[1-9][0-9]*$ ]] || die "--jobs: $jobs is not a number"
for tool in cmake "${CXX:-c++}"; do
  command -v "$tool" >/dev/null || die "$tool is not installed (Debian: apt-get install cmake g++ make)"
done

if [[ "$tests" == ON ]]; then
  build_dir="${build_dir:-$here/build/tests}"
  product="$build_dir"
  settings=(-DTESTS=ON)
else
  build_dir="${build_dir:-$here/build}"
  product="$build_dir/main"
  lite="$(lite_settings)"
  mapfile -t settings <<<"$lite"
fi
mkdir -p "$build_dir"
# Two builds in one folder would damage each other.
exec 9>"$build_dir/.lock"
if command -v flock >/dev/null; then flock 9; fi
# CMake refuses a build folder that was moved or copied with the project.
cache="$build_dir/CMakeCache.txt"
if [[ -f "$cache" ]] && ! { grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$here" "$cache" &&
  grep -qxF "CMAKE_CACHEFILE_DIR:INTERNAL=$(cd "$build_dir" && pwd -P)" "$cache"; }; then
  rm -rf "$cache" "$build_dir/CMakeFiles"
fi
cmake -S "$here" -B "$build_dir" "${settings[@]}" >"$build_dir/configure.log" 2>&1 ||
  { cat "$build_dir/configure.log" >&2 && die "cmake could not configure the build"; }
cmake --build "$build_dir" --parallel "$jobs" >"$build_dir/build.log" 2>&1 ||
  { cat "$build_dir/build.log" >&2 && die "the build failed"; }
echo "$product"
