"""Damaged and hostile files for every reader of Paddle's formats: a `UserError` or a correct read, nothing else.

Nothing that a file asks for is run (an audit hook watches), no file takes long, and none takes much memory: the process
may grow by `ROOM` only, and running out of that would be a failure.
"""

import contextlib
import json
import pickle
import random
import resource
import struct
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from models.common.errors import UserError
from models.common.weights.arrays import bfloat16
from models.common.weights.formats import ERNIE
from models.common.weights.names import canonical_shapes
from models.common.weights.paddle_tensors import VariableFolder, read_combined, write_variables
from models.common.weights.pdparams import read_pdparams
from models.common.weights.reading import read_checkpoint
from models.common.weights.writing import write_checkpoint
from tests.fuzzing import Target, cut, flip_bytes, fuzz, insert
from tests.hostile_pickles import bomb, evil_call, program_of_opcodes
from tests.tiny import TINY

ROOM = 512 << 20  # bytes; the files have thousands
WATCHED = ("os.", "subprocess.", "exec", "compile", "pickle.find_class", "socket.", "ctypes.", "import", "shutil.")
HARMLESS = ("os.listdir", "os.scandir")
seen: list[str] = []
watching = False


def audit(event: str, details: tuple) -> None:
    """Notes what must not happen while a file is read."""
    if watching and event.startswith(WATCHED) and event not in HARMLESS:
        seen.append(f"{event} {details}"[:200])


def watched(use: Callable[[Path], object]) -> Callable[[Path], object]:
    """`use`, with the audit hook awake."""

    def run(path: Path) -> None:
        global watching
        watching = True
        try:
            use(path)
        except UserError as error:  # the readers of pickles turn all that is raised in them into one
            assert "s are over" not in str(error) and "not enough memory" not in str(error), error
            raise
        finally:
            watching = False

    return run


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """The process may grow by `ROOM`."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def varint(value: int) -> bytes:
    """A number of protobuf."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def odd_descriptor(_: bytes, rng: random.Random) -> bytes:
    """A variable whose description says anything."""
    sizes = (0, 1, 2, 3, 127, 2**31, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)
    dims = b"".join(rng.choice((b"\x10", b"\x10", b"\x12", b"\x18")) + varint(rng.choice(sizes))
                    for _ in range(rng.choice((0, 1, 2, 2, 3, 40))))  # fmt: skip
    description = b"\x08" + varint(rng.choice((0, 5, 5, 5, 6, 7, 22, 25, 2**60))) + dims
    length = rng.choice((len(description), len(description), 0, -1, 2**31 - 1, 5))
    levels = rng.choice((0, 0, 0, 1, 2**63))
    begin = struct.pack("<IQI", rng.choice((0, 0, 0, 1)), levels, 0)
    return begin + struct.pack("<i", length) + description + bytes(rng.choice((0, 4, 24, 100)))


# ---- the files


def arrays() -> dict[str, np.ndarray]:
    """Three small weights."""
    return {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b_0": np.ones(3, np.float16),
        "c": np.ones((2, 2), np.int64),
    }


def proto_field(number: int, content: bytes) -> bytes:
    """A field of bytes of a protobuf message."""
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def model(values: dict[str, np.ndarray]) -> bytes:
    """A ProgramDesc that keeps these, one variable that it does not keep, and an operation."""
    described = []
    for name, array in values.items():
        tensor = b"\x08\x05" + b"".join(b"\x10" + varint(size) for size in array.shape)
        kind = b"\x08\x07" + proto_field(3, proto_field(1, tensor) + b"\x10\x00")
        described.append(proto_field(1, name.encode()) + proto_field(2, kind) + b"\x18\x01")
    described += [
        proto_field(1, b"feed") + proto_field(2, b"\x08\x09") + b"\x18\x01",
        proto_field(1, b"x") + b"\x18\x00",
    ]
    block = b"\x08\x00\x10\x00" + b"".join(proto_field(3, one) for one in described) + proto_field(4, b"op")
    return proto_field(1, block) + proto_field(4, b"\x08\x00")


def pir(values: dict[str, np.ndarray]) -> str:
    """A program of Paddle 3 with these parameters."""
    ops = []
    for name, array in values.items():
        kind = {"#": "0.t_dtensor", "D": [{"#": "0.t_f32"}, list(array.shape), "NCHW"]}
        ops.append({"#": "p", "A": [0, 1, 1, name], "O": {"%": 1, "TT": kind}})
    program = {"regions": [{"blocks": [{"ops": [*ops, {"#": "1.matmul"}]}]}]}
    return json.dumps({"base_code": {"magic": "pir", "version": 4}, "program": program})


def combined(folder: Path, name: str, program: str | bytes, mutate_program: bool) -> Target:
    """Variables in one file beside a program of either kind; one of the two is damaged."""
    folder.mkdir()
    write_variables(folder / "parts", arrays())
    values = b"".join((folder / "parts" / part).read_bytes() for part in sorted(arrays()))
    program = program.encode() if isinstance(program, str) else program
    (folder / "input.pdiparams").write_bytes(values)
    (folder / name).write_bytes(program)
    damaged = name if mutate_program else "input.pdiparams"

    def read(path: Path) -> None:
        (path.parent / damaged).write_bytes(path.read_bytes())
        held = read_combined(path.parent / "input.pdiparams")
        assert len(held) >= 1

    return Target(f"{damaged} of {name}", program if mutate_program else values, watched(read), 400)


def pickled(values: object, protocol: int) -> bytes:
    """As `paddle.save` does."""
    return pickle.dumps(values, protocol=protocol)


def targets(folder: Path) -> Iterator[tuple[Target, Path]]:
    """Every reader with a valid file, and the path that the damaged ones get."""
    write_variables(folder / "variables", arrays())
    one = Target(
        "variable",
        (folder / "variables/a").read_bytes(),
        watched(lambda path: VariableFolder(path.parent)[path.name]),
        700,
    )
    one.mutators = (*one.mutators, odd_descriptor, odd_descriptor, odd_descriptor)
    yield one, folder / "variables" / "input"
    for number, (name, program) in enumerate((("input.json", pir(arrays())), ("input.pdmodel", model(arrays())))):
        for which in (False, True):
            place = folder / f"combined{number}{which}"
            yield combined(place, name, program, which), place / "input"
    named = {"model": OrderedDict((name, ("tensor", it)) for name, it in arrays().items()), "epoch": 3}
    table = {"StructuredToParameterName@@": {"a": "linear_0.w_0"}}
    slices = {"UnpackBigParamInfor@@": {"w": {"OriginShape": (6,), "slices": ["a"]}}}
    contents = {f"protocol {protocol}": pickled(arrays() | table, protocol) for protocol in (2, 3, 4, 5)}
    contents |= {"nested": pickled(named, 4), "slices": pickled(arrays() | slices, 2)}
    for name, content in contents.items():
        target = Target(name, content, watched(read_pdparams), 350)
        target.mutators = (flip_bytes, cut, insert, evil_call, evil_call)
        yield target, folder / "model.pdparams"
    hostile = Target("instructions", contents["protocol 4"], watched(read_pdparams), 1200)
    hostile.mutators = (program_of_opcodes,)
    yield hostile, folder / "model.pdparams"
    bombs = Target("bombs", contents["protocol 4"], watched(read_pdparams), 150)
    bombs.mutators = (bomb,)
    yield bombs, folder / "model.pdparams"
    yield from checkpoints(folder / "whole")


def checkpoints(folder: Path) -> Iterator[tuple[Target, Path]]:
    """Whole checkpoints, as the migrate command reads them."""
    small = TINY.to_dict() | {"vocab_size": 5, "hidden_size": 4, "intermediate_size": 4, "max_position_embeddings": 3}
    config = type(TINY).from_dict(small)
    tensors = {name: np.ones(shape, np.float32) for name, shape in canonical_shapes(config, ("pooler",)).items()}
    for to in ("fluid", "paddlenlp"):
        written = write_checkpoint(to, folder / to, config, tensors, family=ERNIE)
        damaged = written / "encoder_layer_0_ffn_fc_0.w_0" if written.is_dir() else written
        content = damaged.read_bytes()

        def read(path: Path, written: Path = written) -> None:
            assert read_checkpoint(written, families=[ERNIE]).config == config
            del path

        yield Target(f"checkpoint of {to}", content, watched(read), 250), damaged


def test_damaged_files_of_paddle(tmp_path, monkeypatch):
    bfloat16()  # imports what the readers import late
    "".encode("utf-8-sig")
    sys.addaudithook(audit)
    monkeypatch.setattr("os.fsync", lambda _: None)
    report: dict[str, Counter] = {}
    for target, path in targets(tmp_path):
        with little_memory():
            report[target.name] = fuzz(target, path, target.runs)
        path.unlink(missing_ok=True)
    print({name: dict(outcomes) for name, outcomes in report.items()})
    assert seen == []
    assert not Path("/tmp/fuzzed").exists()
    assert sum(map(Counter.total, report.values())) >= 5000
    for name, outcomes in report.items():
        assert outcomes["refused"] > 5 and outcomes["read"] > (0 if name in ("instructions", "bombs") else 4), (
            name,
            outcomes,
        )
