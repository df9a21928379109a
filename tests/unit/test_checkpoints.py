"""Full-state checkpoints: what was saved comes back, and damage never passes for a state."""

import shutil

import numpy as np
import pytest

from models.common.errors import UserError
from models.common.train.checkpoints import CheckpointFolder

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "optimizer.m.a": np.array([np.pi], np.float32)}


@pytest.fixture
def folder(tmp_path):
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", keep=3)
    for step in (10, 20, 30):
        checkpoints.save(step, {name: value + step for name, value in ARRAYS.items()}, {"step again": step})
    return checkpoints


def assert_state(checkpoints, step, damaged=0):
    state, messages = checkpoints.newest()
    assert (state.step, state.values, len(messages)) == (step, {"step again": step}, damaged)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(state.arrays[name], value + step)
    return messages


def test_the_newest_comes_back(folder):
    assert_state(folder, 30)


def test_only_the_newest_are_kept(folder):
    folder.save(40, ARRAYS, {})
    names = sorted(path.name for path in folder.folder.iterdir())
    assert names == ["step-00000020", "step-00000030", "step-00000040"]


def test_an_empty_folder_has_no_state(tmp_path):
    assert CheckpointFolder(tmp_path / "none").newest() == (None, [])


def test_a_save_that_was_cut_off_is_no_checkpoint(folder):
    (folder.folder / "step-00000030" / "state.json").unlink()
    assert_state(folder, 20)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "state.safetensors").write_bytes(b"short"),
        lambda path: (path / "state.safetensors").unlink(),
        lambda path: (path / "state.json").write_text('{"version": 1, "st'),
        lambda path: (path / "state.json").write_text('{"version": 1}'),
        lambda path: (path / "state.json").write_text("[]"),
        lambda path: (path / "state.json").write_text('{"version": 7, "step": 30, "sha256": "", "values": {}}'),
    ],
)
def test_damage_is_named_and_the_one_before_is_used(folder, damage):
    damage(folder.folder / "step-00000030")
    messages = assert_state(folder, 20, damaged=1)
    assert "step-00000030" in messages[0]


def test_a_run_whose_states_are_all_damaged_does_not_begin_anew(folder):
    for path in folder.folder.glob("*/state.safetensors"):
        path.write_bytes(b"short")
    with pytest.raises(UserError, match=r"step-00000030.*damaged.*step-00000020.*damaged.*no sound checkpoint is left"):
        folder.newest()


@pytest.mark.parametrize("keep", [1, 2, 4, 5, 10])
def test_as_many_as_asked_for_are_kept(tmp_path, keep):
    checkpoints = CheckpointFolder(tmp_path, keep)
    for step in range(1, 13):
        checkpoints.save(step, ARRAYS, {})
        assert len([*tmp_path.glob("*/state.json")]) == min(step, keep)


def test_a_leftover_of_the_same_step_is_replaced(folder):
    half = folder.folder / "step-00000040"
    shutil.copytree(folder.folder / "step-00000030", half)
    folder.save(40, {name: value + 40 for name, value in ARRAYS.items()}, {"step again": 40})
    assert_state(folder, 40)


@pytest.mark.parametrize("keep", [1, 2])
def test_what_lies_behind_the_newest_save_never_costs_a_sound_one(folder, keep):
    """A run killed while saving step 30 and resumed with another cadence saves step 25 next."""
    (folder.folder / "step-00000030" / "state.json").unlink()
    resumed = CheckpointFolder(folder.folder, keep)
    resumed.save(25, {name: value + 25 for name, value in ARRAYS.items()}, {"step again": 25})
    assert_state(resumed, 25)
    kept = ["step-00000020", "step-00000025"][-keep:]
    assert sorted(path.name for path in folder.folder.iterdir()) == kept


def test_a_damaged_later_state_goes_when_the_run_has_gone_on(folder):
    (folder.folder / "step-00000030" / "state.safetensors").write_bytes(b"short")
    folder.save(25, {name: value + 25 for name, value in ARRAYS.items()}, {"step again": 25})
    assert_state(folder, 25)
