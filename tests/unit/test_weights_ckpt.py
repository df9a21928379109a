"""MindSpore .ckpt files: against MindSpore's own reader and writer, and damaged."""

import random

import mindspore as ms
import numpy as np
import pytest

from models.common.errors import UserError
from models.common.weights.arrays import same_bits
from models.common.weights.mindspore_ckpt import TYPE_NAMES, read_ckpt, write_ckpt
from tests.weights_data import random_tensors


def sample() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    tensors = {
        f"of.{name}": generator.integers(0, 2, (3, 5)).astype(name)
        for name in TYPE_NAMES.values()
        if name != "bfloat16"
    }
    return {
        **tensors,
        "wide": generator.standard_normal((300, 7)).astype(np.float32),
        "scalar": np.array(2.5, np.float32),
        "名字": np.arange(2),
    }


def save_with_mindspore(path, tensors, **options):
    listed = [{"name": name, "data": ms.Tensor(tensor)} for name, tensor in tensors.items()]
    ms.save_checkpoint(listed, str(path), **options)


def test_bytes_equal_those_of_mindspore(tmp_path):
    save_with_mindspore(tmp_path / "theirs.ckpt", sample())
    write_ckpt(tmp_path / "ours.ckpt", sample())
    assert (tmp_path / "ours.ckpt").read_bytes() == (tmp_path / "theirs.ckpt").read_bytes()
    read = read_ckpt(tmp_path / "theirs.ckpt")
    assert list(read) == list(sample())
    assert all(same_bits(read[name], tensor) for name, tensor in sample().items())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_mindspore_reads_ours_in_slices(tmp_path, dtype):
    tensors = random_tensors(dtype=dtype)
    write_ckpt(tmp_path / "x.ckpt", tensors, slice_bytes=1000)
    theirs = ms.load_checkpoint(str(tmp_path / "x.ckpt"))
    ours = read_ckpt(tmp_path / "x.ckpt")
    assert list(theirs) == list(ours) == list(tensors)
    for name, tensor in tensors.items():
        assert same_bits(ours[name], tensor)
        assert theirs[name].asnumpy().tobytes() == tensor.tobytes() and theirs[name].shape == tensor.shape
        assert str(theirs[name].dtype).lower() == dtype


def test_text_entries_and_checksum(tmp_path):
    path = tmp_path / "x.ckpt"
    save_with_mindspore(path, sample(), crc_check=True, append_dict={"epoch_num": 3, "note": "été"})
    read = read_ckpt(path)
    assert int(read["epoch_num"]) == 3 and str(read["note"]) == "été"
    content = bytearray(path.read_bytes())
    content[-400] ^= 1
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.ckpt: .*CRC32"):
        read_ckpt(damaged)


def test_types_without_a_name_are_refused(tmp_path):
    with pytest.raises(UserError, match="x: MindSpore checkpoints have no type for complex64"):
        write_ckpt(tmp_path / "x.ckpt", {"x": np.zeros(2, np.complex64)})
    assert not list(tmp_path.iterdir())


def test_empty_and_encrypted_files(tmp_path):
    (tmp_path / "empty.ckpt").touch()
    save_with_mindspore(tmp_path / "secret.ckpt", sample(), enc_key=b"0123456789ABCDEF")
    for name in ("empty", "secret"):
        with pytest.raises(UserError, match=rf"{name}\.ckpt: "):
            read_ckpt(tmp_path / f"{name}.ckpt")


def test_every_truncation_is_an_error_or_a_shorter_list(tmp_path):
    write_ckpt(tmp_path / "x.ckpt", sample())
    whole = (tmp_path / "x.ckpt").read_bytes()
    cut = tmp_path / "cut.ckpt"
    for length in [*range(1, 600), *range(600, len(whole), 97)]:
        cut.write_bytes(whole[:length])
        try:
            read = read_ckpt(cut)
        except UserError as error:
            assert "cut.ckpt: " in str(error)
        else:  # a cut between two tensors: the names that are gone are found by the strict matching
            assert list(read) == list(sample())[: len(read)] and len(read) < len(sample())


def test_mutated_files_never_raise_anything_else(tmp_path):
    write_ckpt(tmp_path / "x.ckpt", {name: tensor for name, tensor in sample().items() if name != "wide"})
    whole = (tmp_path / "x.ckpt").read_bytes()
    generator, path, refused = random.Random(5), tmp_path / "mutated.ckpt", 0
    for _ in range(1500):
        content = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            read_ckpt(path)
        except UserError:
            refused += 1
    assert 300 < refused < 1500
