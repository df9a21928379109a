"""Strict matching, canonical folders, loading into MindSpore cells."""

import json
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from safetensors.numpy import load_file, save_file

from models.common.errors import UserError
from models.common.weights.arrays import cast, same_bits
from models.common.weights.canonical import save_canonical, tensors_sha256
from models.common.weights.loading import load_into
from models.common.weights.matching import match
from tests.weights_data import DTYPES, TINY, load_any, random_tensors


class TwoParameters(nn.Cell):
    """A float32 weight [2, 3] and a bias [2] of another type."""

    def __init__(self, bias_type=ms.float16):
        super().__init__()
        self.weight = ms.Parameter(ms.Tensor(np.zeros((2, 3), np.float32)), name="weight")
        self.bias = ms.Parameter(ms.Tensor(np.full(2, 7, np.float32), bias_type), name="bias")


def test_match_names_all_problems_at_once():
    given = {"b": np.zeros(3), "c": np.zeros((2, 4)), "head.x": np.zeros(1), "extra": np.zeros(1)}
    with pytest.raises(UserError) as error:
        match({"a": (2,), "b": (3,), "c": (4, 2), "new.y": (1,)}, given, allow_unused=["head.*"], allow_new=["new.*"])
    text = str(error.value)
    assert "1 missing from the file:\n    a\n" in text
    assert "1 in the file, but not known or not wanted:\n    extra\n" in text
    assert "c: (2, 4) where (4, 2) is wanted" in text
    assert "head.x" not in text and "new.y" not in text


def test_match_reports():
    report = match({"a": (1,), "n": (1,)}, {"a": np.zeros(1), "h": np.zeros(1)}, ["h"], ["n"])
    assert (report.used, list(report.unused), report.new) == (["a"], ["h"], ["n"])
    assert str(report) == "used: 1 tensors\nunused: 1\n  h (allowed)\nnew (as initialised): 1\n  n"
    with pytest.raises(UserError):  # patterns mind case and fit whole names
        match({}, {"Heads": np.zeros(1)}, ["heads", "ead"])


def test_load_into_sets_values_in_the_parameters_own_type():
    net = TwoParameters()
    weight = np.arange(6, dtype=np.float16).reshape(2, 3)
    report = load_into(net, {"weight": weight, "bias": np.array([1, 2], np.float32)})
    assert report.used == ["weight", "bias"]
    assert net.weight.dtype == ms.float32 and np.array_equal(net.weight.asnumpy(), weight)
    assert net.bias.dtype == ms.float16 and net.bias.asnumpy().tolist() == [1, 2]


def test_load_into_and_from_bfloat16():
    net = TwoParameters(ms.bfloat16)
    weight = np.array([[1.5, -2, 3], [0, 1e-30, 1e30]], DTYPES["bfloat16"])
    load_into(net, {"weight": weight, "bias": np.array([1 + 2**-7, 1 + 2**-12], np.float32)})
    assert np.array_equal(net.weight.asnumpy(), weight.astype(np.float32))
    assert net.bias.dtype == ms.bfloat16 and net.bias.float().asnumpy().tolist() == [1 + 2**-7, 1]


def test_load_into_sets_all_or_nothing():
    net = TwoParameters()
    ones = np.ones((2, 3), np.float32)
    with pytest.raises(UserError, match="bias"):
        load_into(net, {"weight": ones})
    with pytest.raises(UserError, match="beyond the range of float16"):
        load_into(net, {"weight": ones, "bias": np.array([1, 1e6], np.float32)})
    assert not net.weight.asnumpy().any()
    load_into(net, {"weight": ones}, allow_new=["bias"])
    assert net.weight.asnumpy().all() and net.bias.asnumpy().tolist() == [7, 7]


def test_cast():
    values = np.array([np.inf, np.nan, 65504], np.float32)
    assert cast("x", values, np.float32) is values
    assert cast("x", values, "float16").dtype == np.float16
    with pytest.raises(UserError, match="x: "):
        cast("x", np.array([65536], np.float32), np.float16)


@pytest.mark.parametrize("dtype", DTYPES)
def test_canonical_folder_keeps_every_bit(tmp_path, dtype):
    tensors = random_tensors(dtype=dtype)
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("[PAD]\n")
    for name in ("one", "two"):
        shuffled = dict(reversed(tensors.items())) if name == "two" else tensors
        save_canonical(tmp_path / name, TINY, shuffled, vocab=vocab, info={"b": 1, "a": [2], "c": "x", "d": None})
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "two/model.safetensors").read_bytes()
    config, loaded = load_any(tmp_path / "one")
    assert config == TINY and set(loaded) == set(tensors)
    assert all(same_bits(loaded[name], tensors[name]) for name in tensors)
    assert (tmp_path / "one/vocab.txt").read_text() == "[PAD]\n"
    assert tensors_sha256(loaded) == tensors_sha256(tensors)


def test_transposed_views_are_written_by_value(tmp_path):
    tensors = {name: np.asarray(tensor, order="F") for name, tensor in random_tensors().items()}
    save_canonical(tmp_path, TINY, tensors)
    independent = load_file(tmp_path / "model.safetensors")
    assert all(same_bits(independent[name], np.ascontiguousarray(tensors[name])) for name in tensors)


def test_hash_minds_names_types_shapes_and_values():
    tensors = random_tensors()
    changed = [
        {**tensors, "pooler.bias": -tensors["pooler.bias"]},
        {**tensors, "pooler.bias": tensors["pooler.bias"][None]},
        {**tensors, "pooler.bias": tensors["pooler.bias"].astype(np.float16)},
        {("x" if name == "pooler.bias" else name): tensor for name, tensor in tensors.items()},
    ]
    assert len({tensors_sha256(each) for each in [tensors, *changed]}) == 5
    assert tensors_sha256(tensors) == tensors_sha256(dict(reversed(tensors.items())))


def test_canonical_folder_is_checked(tmp_path):
    tensors = random_tensors()
    with pytest.raises(UserError, match=r"heads\.span\.bias"):  # a head comes as a whole
        save_canonical(tmp_path, TINY, {k: v for k, v in tensors.items() if k != "heads.span.bias"})
    with pytest.raises(UserError, match=r"no floating-point weights: pooler\.bias: int8"):
        save_canonical(tmp_path, TINY, {**tensors, "pooler.bias": np.zeros(24, np.int8)})
    assert not list(tmp_path.iterdir())
    save_canonical(tmp_path, TINY, tensors)
    settings = TINY.to_dict()
    for change, complaint in [
        ({"num_hidden_layers": 2}, "18 in the file|16 in the file"),
        ({"num_hidden_layers": 4}, "16 missing"),
        ({"vocab_size": 38}, r"\(37, 24\) where \(38, 24\)"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"is_decoder": True}, "is_decoder"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(UserError, match=complaint):
            load_any(tmp_path)
    for name in ("layer_norm_eps", "hidden_act", "num_attention_heads"):  # never a silent default
        (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != name}))
        with pytest.raises(UserError, match=f"{name} missing"):
            load_any(tmp_path)


def test_truncated_safetensors_name_the_file(tmp_path):
    save_canonical(tmp_path, TINY, random_tensors())
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 9, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"model\.safetensors: "):
            load_any(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    save_canonical(tmp_path, TINY, random_tensors(seed=1))
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(_, temporary, **__):
        temporary.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("models.common.weights.safetensors_file.save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_canonical(tmp_path, TINY, random_tensors(seed=2))
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_bfloat16_without_ml_dtypes_is_a_clear_error(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"x": random_tensors(dtype="bfloat16")["pooler.bias"]}, path)
    program = (
        "import sys; sys.modules['ml_dtypes'] = None\n"
        "from models.common.cli import run_main\n"
        "from models.common.weights.safetensors_file import read_safetensors\n"
        f"run_main(lambda _: read_safetensors({str(path)!r}) and 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 2 and "ml_dtypes" in run.stderr and "Traceback" not in run.stderr


def test_files_are_as_readable_as_the_users_other_files(tmp_path):
    save_canonical(tmp_path, TINY, random_tensors())
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
