"""`benchmarks.pretrain_curves` on a tiny network: both sides train on the same batches in the same way."""

import json

import numpy as np
import pytest

from benchmarks import pretrain_curves, table
from tests.pretraining import curve, write_corpus, write_features, write_network
from tests.tolerances import TOLERANCES

STEPS = 6


@pytest.fixture(scope="module")
def result(tmp_path_factory, minilm_dir) -> dict:
    """A short run without dropout; the folder is in "settings"."""
    folder = tmp_path_factory.mktemp("curves")
    features = write_features(
        folder / "features", write_corpus(folder / "corpus.txt"), minilm_dir / "vocab.txt", shards=1
    )
    network = write_network(folder / "network.json")
    flags = ["--data_dir", features, "--eval_data_dir", features, "--network", network, "--output_dir", folder / "out"]
    behind = ["--train_steps", STEPS, "--train_batch_size", 20, "--optimizer.learning_rate", 1e-2,
              "--hidden_dropout_prob", 0, "--attention_probs_dropout_prob", 0]  # fmt: skip
    pretrain_curves.main([str(word) for word in (*flags, "--", *behind)])
    return json.loads((folder / "out" / "result.json").read_text()) | {"folder": folder / "out"}


def test_without_dropout_both_sides_have_the_same_losses(result):
    ours, peer = result["losses"].values()
    assert result["steps"] == len(ours) == len(peer) == STEPS
    assert ours == [entry["loss"] for entry in curve(result["folder"] / "ours")]
    assert ours[0] == pytest.approx(peer[0], rel=TOLERANCES["loss"].rtol)
    rtol, atol, _ = TOLERANCES["training steps"]
    np.testing.assert_allclose(ours, peer, rtol=rtol, atol=atol)
    assert np.ptp(ours) > 0.1  # the weights did change


def test_both_are_scored_and_drawn(result):
    assert (result["folder"] / "curves.png").read_bytes().startswith(b"\x89PNG")
    ours, peer = result["scores"]["ours"], result["scores"]["peer"]
    assert ours == pytest.approx(peer, abs=1e-2) and 0 < ours["nsp_accuracy"] < 1
    apart = result["curves_apart"]
    assert 0 < apart["mean"] <= apart["largest"] < 1e-2


def test_the_result_becomes_a_table(result, capsys):
    table.main([str(result["folder"] / "result.json")])
    titles, _, row, *below = capsys.readouterr().out.splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert titles.count("|") == row.count("|") == len(table.CURVES) + 1
    assert cells[1:3] == ["1", str(STEPS)]
    ours, peer = result["scores"]["ours"], result["scores"]["peer"]
    assert cells[4] == f"{ours['mlm_loss']:.3f} / {peer['mlm_loss']:.3f}"
    assert "python -m benchmarks.pretrain_curves" in below[1]


def test_a_short_run_has_a_window_of_its_own():
    assert pretrain_curves.window_of([0.0] * 1000) == pretrain_curves.WINDOW
    np.testing.assert_allclose(pretrain_curves.smoothed([4.0, 2.0, 0.0, 6.0]), [3.0, 1.0, 3.0])
    np.testing.assert_allclose(pretrain_curves.smoothed([4.0]), [4.0])
