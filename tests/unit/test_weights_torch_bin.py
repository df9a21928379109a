"""pytorch_model.bin read without torch: values against torch, and pickles that want more than tensors."""

import io
import os
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from models.common.errors import UserError
from models.common.weights.arrays import same_bits
from models.common.weights.torch_bin import LEGACY_MAGIC, LEGACY_PROTOCOL, STORAGE_DTYPES, read_torch

FORMS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def sample() -> OrderedDict:
    torch.manual_seed(0)
    block = torch.randn(6, 10)
    by_type = {
        f"of.{name}": torch.arange(-2, 4).reshape(2, 3).to(getattr(torch, name)) for name in STORAGE_DTYPES.values()
    }
    return OrderedDict(
        **by_type,
        whole=block,
        transposed=block.t(),
        row=block[2],
        part=block[1:5:2, 3:7],
        scalar=torch.tensor(1.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(4)),
        positions=torch.arange(9).expand(1, -1),
    )


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.ascontiguousarray(tensor.detach().numpy()).reshape(tensor.shape)


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def test_values_equal_torchs(tmp_path, form):
    torch.save(sample(), tmp_path / "x.bin", **form)
    read = read_torch(tmp_path / "x.bin")
    assert list(read) == list(sample())
    for name, tensor in torch.load(tmp_path / "x.bin").items():
        assert same_bits(read[name], as_numpy(tensor)), name


def test_needs_no_torch(tmp_path, form):
    torch.save(sample(), tmp_path / "x.bin", **form)
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from models.common.weights.torch_bin import read_torch\n"
        f"assert len(read_torch({str(tmp_path / 'x.bin')!r})) == {len(sample())}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


ATTACKS = {
    "system": (lambda mark: Calls(os.system, f"touch {mark}"), r"(posix|os)\.system"),
    "eval": (lambda mark: Calls(eval, f"open({str(mark)!r}, 'w')"), r"__builtin__\.eval"),
    "getattr": (lambda _: Calls(getattr, OrderedDict, "mro"), r"__builtin__\.getattr"),
    "inner torch.load": (lambda _: Calls(torch.storage._load_from_bytes, b""), r"torch\.storage\._load_from_bytes"),
    "numpy": (lambda _: Calls(np.frombuffer, b"1234"), r"numpy"),
    "a whole module": (lambda _: torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_other_globals_are_refused_by_name_and_not_run(tmp_path, form, attack):
    build, name = ATTACKS[attack]
    mark, path = tmp_path / "executed", tmp_path / "evil.bin"
    torch.save({"weight": torch.ones(2), "evil": build(mark)}, path, **form)
    with pytest.raises(UserError, match=rf"evil\.bin: the file asks to load {name}"):
        read_torch(path)
    assert not mark.exists()


def test_attack_in_the_header_of_the_old_form(tmp_path):
    mark, path = tmp_path / "executed", tmp_path / "evil.bin"
    torch.save({"x": torch.ones(1)}, path, **FORMS["legacy"])
    content = path.read_bytes()
    magic = content[: content.index(b".") + 1]
    path.write_bytes(magic + pickle.dumps(Calls(os.system, f"touch {mark}"), protocol=2) + content[len(magic) :])
    with pytest.raises(UserError, match="system"):
        read_torch(path)
    assert not mark.exists()


def test_state_changed_by_a_pickle_dies_with_it(tmp_path):
    """BUILD may set attributes on what a global resolves to; the next file must not notice."""
    build = (
        b"\x80\x02" + b"ctorch._utils\n_rebuild_tensor_v2\n" + b"N}X\x0c\x00\x00\x00__defaults__K\x01s\x86b."
    )  # fmt: skip
    good, evil = tmp_path / "good.bin", tmp_path / "evil.bin"
    torch.save({"x": torch.arange(3.0)}, good)
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("a/data.pkl", build)
    with pytest.raises(UserError):
        read_torch(evil)
    assert read_torch(good)["x"].tolist() == [0, 1, 2]


def test_tuples_without_end_are_neither_shown_nor_looked_up(tmp_path):
    """Of 60 levels of a tuple that holds the one before twice, text and hash take 2^60 steps."""
    endless = b")q\x000" + b"h\x00h\x00\x86q\x000" * 60
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x01tQ"
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n("
    pickles = {
        "key": storage.replace(b"X\x01\x00\x00\x000", b"h\x00"),
        "type": storage.replace(b"ctorch\nFloatStorage\n", b"h\x00"),
        "length": storage.replace(b"K\x01t", b"h\x00t"),
        "size": b"}X\x01\x00\x00\x00x" + rebuilt + storage + b"K\x00h\x00K\x01\x85tRs",
        "stride": b"}X\x01\x00\x00\x00x" + rebuilt + storage + b"K\x00K\x01\x85h\x00tRs",
    }
    for name, content in pickles.items():
        with zipfile.ZipFile(tmp_path / f"{name}.bin", "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02" + endless + content + b".")
            archive.writestr("a/data/0", bytes(4))
    legacy = [pickle.dumps(value, protocol=2) for value in (LEGACY_MAGIC, LEGACY_PROTOCOL, {"little_endian": True}, {})]
    (tmp_path / "legacy.bin").write_bytes(b"".join(legacy) + b"\x80\x02" + endless + b"h\x00\x85.")
    program = (
        "import sys\nfrom models.common.errors import UserError\n"
        "from models.common.weights.torch_bin import read_torch\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        read_torch(path)\n        sys.exit(path)\n"
        "    except UserError as error:\n        print(error)"
    )
    paths = sorted(map(str, tmp_path.glob("*.bin")))
    command = [sys.executable, "-c", program, *paths]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    for path, line in zip(paths, done.stdout.splitlines(), strict=True):
        assert line.startswith(f"{path}: not a whole PyTorch weights file (")
        assert "without a name" in line or "of an unknown type" in line or "of impossible size or stride" in line, line


def test_a_few_bytes_cannot_ask_for_all_memory(tmp_path):
    """LONG_BINPUT with index 2^28 makes the C unpickler fill 4 GB; here it is one entry of a dict."""
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}r\x00\x00\x00\x10.")
    program = (
        "import resource; from models.common.weights.torch_bin import read_torch\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        f"assert read_torch({str(path)!r}) == {{}}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def rewrite_zip(path, change):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def shorten_storage(members):
    name = next(name for name in members if name.endswith("/data/0"))
    members[name] = members[name][:-4]


def drop_storage(members):
    del members[next(name for name in members if name.endswith("/data/0"))]


def big_endian(members):
    members[next(name for name in members if name.endswith("byteorder"))] = b"big"


def reach_beyond(members):
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = members[name].replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86")  # size (2, 3) -> (2, 9)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (shorten_storage, "bytes of data where"),
        (drop_storage, "not a whole PyTorch weights file"),
        (big_endian, "big-endian"),
        (reach_beyond, "reaches beyond its storage"),
    ],
)
def test_contradictory_archives(tmp_path, change, complaint):
    path = tmp_path / "x.bin"
    torch.save({"x": torch.randn(2, 3)}, path)
    rewrite_zip(path, change)
    with pytest.raises(UserError, match=rf"x\.bin: .*{complaint}"):
        read_torch(path)


def test_stride_zero_cannot_blow_up_a_few_bytes(tmp_path):
    torch.save({"x": torch.zeros(1).expand(10**9, 10**3)}, tmp_path / "x.bin")
    assert (tmp_path / "x.bin").stat().st_size < 10_000
    with pytest.raises(UserError, match="beyond its storage"):
        read_torch(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("saved", "complaint"),
    [
        ([torch.ones(1)], "holds a list"),
        ({"model": {"x": torch.ones(1)}, "epoch": 3}, "model, epoch are no tensors"),
    ],
)
def test_only_state_dicts(tmp_path, form, saved, complaint):
    torch.save(saved, tmp_path / "x.bin", **form)
    with pytest.raises(UserError, match=complaint):
        read_torch(tmp_path / "x.bin")


def test_truncated_and_mutated_files_never_raise_anything_else(tmp_path, form):
    torch.save(sample(), tmp_path / "x.bin", **form)
    whole = (tmp_path / "x.bin").read_bytes()
    path, generator, refused = tmp_path / "y.bin", random.Random(7), 0
    for length in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"y\.bin: "):
            read_torch(path)
    for _ in range(800):
        content = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            read_torch(path)
        except UserError:
            refused += 1
    assert refused > 100


def test_a_stream_that_ends_before_an_empty_tensor_is_refused(tmp_path):
    """Its length of 0 looks like what is read behind the end."""
    torch.save({"empty": torch.zeros(0)}, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "x.bin").read_bytes()
    assert read_torch(tmp_path / "x.bin")["empty"].size == 0
    for missing in range(1, 9):
        (tmp_path / "x.bin").write_bytes(whole[:-missing])
        with pytest.raises(UserError, match="announced"):
            read_torch(tmp_path / "x.bin")


def test_compressed_archives_are_refused(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
    (tmp_path / "x.bin").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="compressed"):
        read_torch(tmp_path / "x.bin")
