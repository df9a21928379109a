"""Paddle's files, read and written without Paddle: against Paddle itself, and against real files of fluid 1.x."""

import filecmp
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from models.common.errors import UserError
from models.common.weights.arrays import same_bits
from models.common.weights.formats import locate, read_tensors
from models.common.weights.paddle_tensors import VariableFolder, read_combined, write_variables
from models.common.weights.pdparams import read_pdparams, write_pdparams
from models.common.weights.restricted_pickle import ordered_dict
from tests.weights_data import assert_same

KINDS = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8", "bool"]


def random_array(kind: str, *shape: int) -> np.ndarray:
    """Any bit patterns of a type; of bool the two that there are."""
    dtype = np.dtype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    values = np.random.default_rng(len(kind)).integers(0, 2 if kind == "bool" else 256, [*shape, dtype.itemsize])
    return values.astype(np.uint8).view(dtype).reshape(shape)


def paddle_tensor(paddle, values: np.ndarray):
    """A tensor of Paddle with these bits."""
    if values.dtype.name == "bfloat16":
        return paddle.to_tensor(values.view(np.uint16)).view("bfloat16")
    return paddle.to_tensor(values)


@pytest.fixture
def static_paddle(paddle):
    """Paddle in its static mode."""
    paddle.enable_static()
    yield paddle
    paddle.disable_static()


@pytest.mark.parametrize("kind", KINDS)
def test_variables_are_those_of_paddle_byte_for_byte(tmp_path, paddle, kind):
    arrays = {
        "matrix": random_array(kind, 3, 5),
        "vector.w_0": random_array(kind, 130),
        "cube": random_array(kind, 2, 3, 4),
    }
    (tmp_path / "theirs").mkdir()
    for name, values in arrays.items():
        paddle.save(paddle_tensor(paddle, values), str(tmp_path / "theirs" / name), use_binary_format=True)
    read = VariableFolder(tmp_path / "theirs")
    assert_same(dict(read), arrays)
    write_variables(tmp_path / "ours", {**arrays, "matrix": np.asfortranarray(arrays["matrix"])})
    assert filecmp.cmpfiles(tmp_path / "theirs", tmp_path / "ours", arrays, shallow=False) == (list(arrays), [], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_real_files_of_fluid(tmp_path):
    """The 20 variables that the package jieba carries were written by Baidu with fluid 1.x."""
    package = Path(importlib.util.find_spec("jieba").submodule_search_locations[0])
    folder = package / "lac_small" / "model_baseline"
    read = VariableFolder(folder)
    assert len(read) == 20 and read.strays == []
    assert read["word_emb"].shape[1] == 128 and 0 < np.abs(read["word_emb"]).mean() < 1
    write_variables(tmp_path / "again", read)
    assert filecmp.cmpfiles(folder, tmp_path / "again", list(read), shallow=False) == (list(read), [], [])


def test_other_files_in_a_folder_are_named(tmp_path):
    write_variables(tmp_path / "params", {"a": random_array("float32", 2, 2)})
    (tmp_path / "params/.DS_Store").write_bytes(b"Bud1")
    (tmp_path / "params/empty").touch()
    (tmp_path / "params/folder").mkdir()
    read = VariableFolder(tmp_path / "params")
    assert list(read) == ["a"] and read.strays == [".DS_Store", "empty"]


def test_what_is_not_wanted_is_not_read(tmp_path):
    """A damaged moment of the optimizer beside whole weights does no harm until somebody asks for it."""
    write_variables(
        tmp_path / "params", {"a": random_array("float32", 2, 2), "a_moment1_0": random_array("float32", 9)}
    )
    moment = tmp_path / "params/a_moment1_0"
    moment.write_bytes(moment.read_bytes()[:-1])
    read = VariableFolder(tmp_path / "params")
    assert read["a"].shape == (2, 2)
    with pytest.raises(
        UserError, match=r"a_moment1_0: not a whole Paddle variable \(it ends within the values of \(9,\)"
    ):
        read["a_moment1_0"]


def program_of_three(paddle):
    """A program with three parameters and a feed; the values of the parameters."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        data = paddle.static.data("data", [None, 4], "float32")
        shapes = {"out.w": [4, 3], "b_scale": [3], "a_more": [3, 3]}
        made = {
            name: paddle.static.create_parameter(shape, "float32", name, attr=paddle.ParamAttr(name=name))
            for name, shape in shapes.items()
        }
        result = paddle.matmul(paddle.matmul(data, made["out.w"]) * made["b_scale"], made["a_more"])
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(startup)
    scope = paddle.static.global_scope()
    values = {name: random_array("float32", *shape) for name, shape in shapes.items()}
    for name, array in values.items():
        scope.find_var(name).get_tensor().set(array, paddle.CPUPlace())
    return main, data, result, executor, values


def test_paddle_3_programs_name_their_combined_variables(tmp_path, static_paddle):
    paddle = static_paddle
    main, data, result, executor, values = program_of_three(paddle)
    paddle.static.save_inference_model(str(tmp_path / "net"), [data], [result], executor, program=main)
    assert json.loads((tmp_path / "net.json").read_text())["base_code"]["magic"] == "pir"
    assert_same(read_combined(tmp_path / "net.pdiparams"), values)
    assert_same(read_tensors(locate(tmp_path / "net.json", [])), values)  # the program stands for its variables
    shapes = json.loads((tmp_path / "net.json").read_text().replace("[4,3]", "[3,4]"))
    (tmp_path / "net.json").write_text(json.dumps(shapes))
    with pytest.raises(UserError, match=r"out\.w has shape \(4, 3\), and \[3, 4\] in net\.json"):
        read_combined(tmp_path / "net.pdiparams")
    (tmp_path / "net.json").unlink()
    with pytest.raises(UserError, match="without their names; these are in the program"):
        read_combined(tmp_path / "net.pdiparams")


def test_paddle_loads_our_variables_into_a_program(tmp_path, static_paddle):
    paddle = static_paddle
    main, _, _, executor, values = program_of_three(paddle)
    write_variables(tmp_path / "params", {name: -array for name, array in values.items()})
    paddle.static.load_vars(executor, str(tmp_path / "params"), main_program=main, predicate=lambda _: True)
    for name, array in values.items():
        assert same_bits(np.array(paddle.static.global_scope().find_var(name).get_tensor()), -array)


# What paddle 2 and fluid wrote, which Paddle 3 does only in a process of its own and not in its new representation.
OLD_PROGRAM = """
import os, sys
os.environ["FLAGS_enable_pir_api"] = "0"
import numpy as np, paddle
paddle.enable_static()
data = paddle.static.data("data", [None, 4], "float32")
named = lambda name: paddle.ParamAttr(name=name)
inner = paddle.static.nn.fc(data, 3, weight_attr=named("out.w"), bias_attr=named("b_scale"))
result = paddle.static.nn.fc(inner, 2, weight_attr=named("a_more"), bias_attr=False)
executor = paddle.static.Executor(paddle.CPUPlace())
executor.run(paddle.static.default_startup_program())
paddle.static.save_inference_model(sys.argv[1], [data], [result], executor)
scope = paddle.static.global_scope()
np.savez(sys.argv[1], **{name: np.array(scope.find_var(name).get_tensor()) for name in ("out.w", "b_scale", "a_more")})
"""


def test_old_programs_name_their_combined_variables(tmp_path):
    subprocess.run([sys.executable, "-c", OLD_PROGRAM, str(tmp_path / "net")], check=True, capture_output=True)
    values = dict(np.load(tmp_path / "net.npz"))
    assert_same(read_combined(tmp_path / "net.pdiparams"), values)
    assert_same(read_tensors(locate(tmp_path / "net.pdmodel", [])), values)
    (tmp_path / "net.pdiparams").rename(tmp_path / "__params__")  # as fluid called them
    program = (tmp_path / "net.pdmodel").rename(tmp_path / "__model__")
    assert_same(read_tensors(locate(program, [])), values)


def test_shared_examples(shared_data):
    """Files that Paddle wrote elsewhere: one set of values in every container."""
    folder = shared_data / "paddle_formats"
    directory = dict(VariableFolder(folder / "fluid_directory"))
    assert len(directory) == 46
    assert_same(read_pdparams(folder / "pdparams/static_save/tiny.pdparams"), directory)
    first, *others = [
        read_pdparams(folder / f"pdparams/dygraph/{name}.pdparams")
        for name in ("model_state", "nested", "numpy_dict", "p2")
    ]
    for other in others:
        assert_same(other, first)
    assert_same(read_tensors(folder / "safetensors/model.safetensors"), first)
    names = pickle.loads((folder / "pdparams/dygraph/model_state.pdparams").read_bytes())["StructuredToParameterName@@"]
    assert_same(
        read_combined(folder / "combined/jit/tiny.pdiparams"), {names[name]: values for name, values in first.items()}
    )
    pooler = read_combined(folder / "combined/fluid1/__params__")
    assert_same(pooler, read_combined(folder / "combined/inference_pdmodel/pool.pdiparams"))
    assert_same(pooler, {name: directory[name] for name in ("pooled_fc.w_0", "pooled_fc.b_0")})


# ---- .pdparams


def state() -> dict[str, np.ndarray]:
    return {
        "a.weight": random_array("float32", 3, 5),
        "b": random_array("float64", 4),
        "c": random_array("float16", 2, 2),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("nested", [False, True])
def test_pdparams_of_paddle(tmp_path, paddle, protocol, nested):
    arrays = state() | {"d": random_array("bfloat16", 3)}
    held = {name: paddle_tensor(paddle, values) for name, values in arrays.items()}
    saved = {"model": held, "epoch": 3, "note": "x"} if nested else held
    paddle.save(saved, str(tmp_path / "model.pdparams"), protocol=protocol)
    assert_same(read_pdparams(tmp_path / "model.pdparams"), arrays)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pdparams_of_numpy_arrays(tmp_path, protocol):
    arrays = state()
    for kind in (dict, OrderedDict):
        held = kind({name: np.asfortranarray(values) for name, values in arrays.items()})
        (tmp_path / "model.pdparams").write_bytes(pickle.dumps(held, protocol=protocol))
        assert_same(read_pdparams(tmp_path / "model.pdparams"), arrays)


def test_paddle_reads_our_pdparams(tmp_path, paddle):
    arrays = state() | {"d": random_array("bfloat16", 3)}
    write_pdparams(tmp_path / "model.pdparams", {**arrays, "a.weight": np.asfortranarray(arrays["a.weight"])})
    loaded = paddle.load(str(tmp_path / "model.pdparams"))
    assert loaded["d"].dtype == paddle.bfloat16
    plain = {name: np.asarray(tensor.numpy()) for name, tensor in loaded.items()}
    plain["d"] = plain["d"].view(ml_dtypes.bfloat16)
    assert_same(plain, arrays)
    assert_same(read_pdparams(tmp_path / "model.pdparams"), arrays)


def test_arrays_that_old_protocols_cut_in_slices(tmp_path, paddle):
    """As `_unpack_saved_dict` of paddle/framework/io_utils.py cuts what is above 1 GiB, at another size."""
    whole = random_array("float32", 4, 6)
    parts = {f"w@@.{number}": whole.reshape(-1)[number * 10 : number * 10 + 10] for number in range(3)}
    cut = {"UnpackBigParamInfor@@": {"w": {"OriginShape": (4, 6), "slices": list(parts)}}}
    (tmp_path / "model.pdparams").write_bytes(pickle.dumps({"v": whole, **parts, **cut}, protocol=2))
    assert_same(read_pdparams(tmp_path / "model.pdparams"), {"v": whole, "w": whole})
    assert same_bits(paddle.load(str(tmp_path / "model.pdparams"), return_numpy=True)["w"], whole)


def test_pdparams_that_are_not_weights_are_refused(tmp_path):
    array = np.ones(3, np.float32)
    for saved, complaint in [
        ([array], "holds a list, not a state dict"),
        ({}, "holds no tensors"),
        ({"a": 1}, "holds no tensors"),
        ({"a": array, "b": 1}, "'b' are no tensors"),
        ({"a": {"x": array}, "b": {"x": array}}, "holds several dicts of tensors"),
        ({"a": np.array(["x"], object)}, "numbers of type 'O8'"),
        ({"a": array.astype(">f4")}, "byte order '>'"),
        ({"a": np.ones(3, "c8")}, "numbers of type 'c8'"),
        ({("a", "b"): array}, "a key that is a tuple"),
        ({"a": {1, 2}}, "not a whole .pdparams"),
    ]:
        (tmp_path / "model.pdparams").write_bytes(pickle.dumps(saved, protocol=4))
        with pytest.raises(UserError, match=complaint):
            read_pdparams(tmp_path / "model.pdparams")


class Reduced:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("_codecs\nencode", (None, {"data": 1})),
        ("builtins\ntuple", (None, {"__defaults__": ([1, 2],)})),
        ("collections\nOrderedDict", (None, {"__defaults__": ([("x", 1)],)})),
    ],
)
def test_state_changed_by_a_pickle_dies_with_it(tmp_path, name, state):
    """What a name resolves to serves the next file, too."""
    evil, good = tmp_path / "evil.pdparams", tmp_path / "good.pdparams"
    evil.write_bytes(b"\x80\x02c" + name.encode() + b"\n" + pickle.dumps(state, protocol=2)[2:-1] + b"b.")
    with pytest.raises(UserError, match="state for something that is no object"):
        read_pdparams(evil)
    good.write_bytes(pickle.dumps(state_dict := OrderedDict(state=np.arange(3, dtype=np.float32)), protocol=2))
    assert_same(read_pdparams(good), state_dict)
    assert ordered_dict() == {}


def test_nothing_that_a_pickle_asks_for_is_run(tmp_path):
    mark = tmp_path / "was_run"
    target = tmp_path / "model.pdparams"
    for function, arguments in [
        (os.system, (f"touch {mark}",)),
        (eval, (f"open({str(mark)!r}, 'w')",)),
        (exec, (f"open({str(mark)!r}, 'w')",)),
        (open, (str(mark), "w")),
        (np.save, (str(mark), np.ones(2))),
        (np.load, (str(mark),)),
        (getattr, ("", "join")),
        (subprocess.run, (["touch", str(mark)],)),
        (importlib.import_module, ("antigravity",)),
    ]:
        for protocol in (2, 4, 5):
            target.write_bytes(pickle.dumps({"a": Reduced(function, *arguments)}, protocol=protocol))
            with pytest.raises(UserError, match=r"the file asks to load .*; it was not run"):
                read_pdparams(target)
    assert not mark.exists() and "antigravity" not in sys.modules
