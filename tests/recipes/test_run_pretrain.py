"""`python -m models.bert.run_pretrain` and `pretrain_eval` on a tiny network and real features."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from data_tools.feature_store import load_features
from models.bert import pretrain_eval, run_pretrain
from models.bert.config import NETWORKS
from models.common.errors import UserError
from models.common.launch.rank_commands import read_settings
from models.common.pretrain import running
from models.common.train import sink
from models.common.train.workers import Workers
from models.common.weights.reading import read_checkpoint
from tests.commands import flags as words_of
from tests.pretraining import curve, host_queue, write_corpus, write_features, write_network
from tests.tiny import write_weights
from tests.tolerances import TOLERANCES

LAUNCHER = Path(__file__).resolve().parents[2] / "scripts/ascend_distributed_launcher"


@pytest.fixture(scope="module")
def data(tmp_path_factory, minilm_dir) -> Path:
    """features/ of 64 tokens in four files, long/ of 96, network.json, vocab.txt."""
    folder = tmp_path_factory.mktemp("pretrain")
    shutil.copy(minilm_dir / "vocab.txt", folder / "vocab.txt")
    corpus = write_corpus(folder / "corpus.txt")
    write_features(folder / "features", corpus, folder / "vocab.txt")
    write_features(folder / "long", corpus, folder / "vocab.txt", row_length=96, shards=1)
    write_network(folder / "network.json", max_position_embeddings=96)
    return folder


def command_line(data: Path, run: Path, *flags: object) -> list[str]:
    settings = {"--network": data / "network.json", "--data_dir": data / "features", "--save_checkpoint_path": run,
                "--vocab_file_path": data / "vocab.txt", "--train_batch_size": 8, "--save_checkpoint_steps": 2,
                "--optimizer.learning_rate": 1e-3}  # fmt: skip
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    return [str(word) for pair in {**settings, **given}.items() for word in pair]


def train(data: Path, run: Path, *flags: object) -> list[dict]:
    """The curve of a run."""
    run_pretrain.main(command_line(data, run, *flags))
    return curve(run)


def test_it_learns_and_what_it_writes_is_whole(data, tmp_path, capsys):
    run = tmp_path / "run"
    steps = train(data, run, "--epoch_size", 3, "--optimizer.learning_rate", 1e-2, "--train_with_eval", "true",
                  "--eval_data_dir", data / "features", "--save_checkpoint_num", 2)  # fmt: skip
    assert np.mean([step["loss"] for step in steps[-5:]]) < np.mean([step["loss"] for step in steps[:5]]) - 2
    count = len(load_features(data / "features"))
    for epoch in range(3):
        assert sum(step["samples"] for step in steps if step["epoch"] == epoch) == count
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["mlm_accuracy"] > 0.05 and 0.3 < printed["nsp_accuracy"] < 0.9
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((run / "checkpoints").iterdir())) == 2
    for weights in (run / "best", run / "last", run / "checkpoint_bert.ckpt"):
        assert "heads.mlm.bias" in read_checkpoint(weights).tensors
    pretrain_eval.main(["--load_checkpoint_path", str(run / "best"), "--eval_data_dir", str(data / "features"),
                        "--output_file", str(tmp_path / "scores.json"), "--packing", "false"])  # fmt: skip
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores == pytest.approx(printed, abs=2e-3)


def test_a_batch_is_the_same_however_it_is_cut(data, tmp_path):
    """Two streams: as two batches one behind the other, or as one."""
    still = ("--hidden_dropout_prob", 0, "--attention_probs_dropout_prob", 0, "--train_steps", 4)
    parts = train(data, tmp_path / "parts", "--accumulation_steps", 2, *still)
    whole = train(data, tmp_path / "whole", "--data_streams", 2, "--train_batch_size", 16, *still)
    assert [step["samples"] for step in parts] == [step["samples"] for step in whole]
    rtol, atol, _ = TOLERANCES["training steps"]
    for name in ("loss", "grad_norm"):
        found, expected = ([step[name] for step in steps] for steps in (parts, whole))
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def test_a_run_goes_on_where_it_stopped(data, tmp_path, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    flags = ("--train_steps", 6, "--accumulation_steps", 2, "--save_checkpoint_num", 3)
    expected = train(data, whole, *flags)
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints/step-00000006")
    shutil.rmtree(run / "last")
    found = train(data, run, *flags)
    assert "resuming" in capsys.readouterr().out
    assert [step["loss"] for step in found] == [step["loss"] for step in expected]
    weights = [read_checkpoint(folder / "last").tensors for folder in (run, whole)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])
    with pytest.raises(UserError, match="holds another run"):
        train(data, run, *flags, "--seed", 2)


def test_length_buckets_take_every_sample_once(data, tmp_path):
    steps = train(data, tmp_path, "--packing", "false", "--bucket_list", "40,64")
    assert sum(step["samples"] for step in steps) == len(load_features(data / "features"))
    assert max(step["samples"] for step in steps) == 8


def test_a_second_phase_goes_on_with_longer_rows(data, tmp_path):
    first = train(data, tmp_path, "--train_steps", 3, "--phase2.data_dir", data / "long", "--phase2.train_steps", 2,
                  "--phase2.learning_rate", 5e-4, "--phase2.warmup_steps", 0)  # fmt: skip
    second = curve(tmp_path / "phase2")
    assert (len(first), len(second)) == (3, 2)
    assert second[0]["learning_rate"] == 5e-4
    weights = [read_checkpoint(folder / "last").tensors["encoder.layers.0.feed_forward.up.weight"]
               for folder in (tmp_path, tmp_path / "phase2")]  # fmt: skip
    assert 0 < np.abs(weights[0] - weights[1]).max() < 0.01


def test_it_starts_from_weights(data, tmp_path, capsys):
    write_weights(tmp_path / "weights", data / "vocab.txt")
    run_pretrain.main([
        "--load_checkpoint_path", str(tmp_path / "weights"), "--data_dir", str(data / "features"), "--train_steps", "1",
        "--save_checkpoint_path", str(tmp_path / "run"), "--enable_save_ckpt", "false",
    ])  # fmt: skip
    assert "heads.mlm.bias" in capsys.readouterr().out  # named as new
    assert not (tmp_path / "run/checkpoints").exists() and not (tmp_path / "run/last").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--data_dir", ""), "--data_dir is needed"),
        (("--vocab_file_path", "absent.txt"), "--vocab_file_path absent.txt: no such file"),
        (("--vocab_file_path", "{other}"), "features: made with another vocabulary than .*other.txt"),
        (("--phase2.data_dir", "absent"), "absent"),
        (("--phase2.data_dir", "{data}/long", "--phase2.accumulation_steps", 2), "long: has 1 files, 2 are needed"),
        (
            ("--train_with_eval", "true", "--eval_data_dir", "{data}/long", "--network", "{narrow}"),
            "long: rows of 96 tokens; the network has positions for 64",
        ),
        (("--train_with_eval", "true"), "--eval_data_dir belong together"),
        (("--bucket_list", "32,64"), "give --packing false too"),
        (("--packing", "false", "--bucket_list", "64,32"), "ascending row lengths"),
        (("--packing", "false", "--max_samples_per_row", 4), "no use with --packing false"),
        (("--train_steps", 0), "trains nothing"),
        (("--phase2.train_steps", 3), "no use without --phase2.data_dir"),
        (("--device_num", 2), "needs --distribute true"),
        (("--distribute", "true"), "is not one of several"),
        (("--allreduce_post_accumulation", "false"), "must be one of true"),
        (("--enable_data_sink", "true"), "--enable_data_sink true needs --device_target GPU or Ascend"),
        (("--enable_data_sink", "true", "--packing", "false", "--bucket_list", "40,64"), "all rows are of one length"),
        (("--data_sink_steps", 2), "--data_sink_steps 2 has no use without --enable_data_sink true"),
        (("--data_sink_steps", 2, "--enable_lossscale", "true"), "cannot go with a scaled loss"),
        (("--network", "giant"), "network 'giant' is unknown; one of base, nezha, large, large_boost, small"),
        (("--vocab_size", 1000), "holds token id"),
        (("--accumulation_steps", 5), "has 4 files, 5 are needed"),
        (("--data_streams", 3, "--accumulation_steps", 2), "is no multiple of 1 workers times"),
        (("--loss_scale_value", 4), "--loss_scale.initial has no use while the loss is not scaled"),
        (("--optimizer.name", "momentum", "--optimizer.beta2", 0.5), "has no use with momentum"),
    ],
)
def test_what_cannot_work_is_refused(data, tmp_path, flags, says):
    other, narrow = tmp_path / "other.txt", write_network(tmp_path / "narrow.json", max_position_embeddings=64)
    other.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n")
    words = [str(word).format(data=data, other=other, narrow=narrow) for word in flags]
    with pytest.raises(UserError, match=says):
        train(data, tmp_path / "run", *words)
    assert not list(tmp_path.glob("run/checkpoints/*"))


SUNK = ("--enable_data_sink", "true", "--data_sink_steps", 3)


def test_the_data_sink_is_taken_where_a_device_has_it(data, tmp_path):
    for target in ("GPU", "Ascend"):
        running.check(run_pretrain.parse(command_line(data, tmp_path, *SUNK, "--device_target", target)))


def test_the_settings_of_the_ascend_launcher_are_taken():
    settings = read_settings(LAUNCHER / "hyper_parameter_config.ini")
    config = run_pretrain.parse(words_of({**settings, "device_target": "Ascend", "data_dir": "wiki"}))
    running.check(config)
    assert config.scales_loss and not config.enable_data_sink


def run_phase(data: Path, run: Path, *flags: object) -> None:
    """What the command does once it has found its device."""
    config = run_pretrain.parse(command_line(data, run, *flags))
    running.Phase(config, run, NETWORKS, Workers(), running.starting_point(config, NETWORKS)).run()


def logged(run: Path) -> list[dict]:
    entries = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def test_data_that_go_ahead_and_losses_read_together_change_nothing(data, tmp_path, monkeypatch):
    """Through the dataset of the data sink, and read three at a time, but for an evaluation and a checkpoint."""
    flags = ("--train_steps", 10, "--train_with_eval", "true", "--eval_data_dir", data / "features", "--eval_steps", 7,
             "--save_checkpoint_steps", 5, "--save_checkpoint_num", 2)  # fmt: skip
    one_by_one, together = tmp_path / "one by one", tmp_path / "together"
    train(data, one_by_one, *flags)
    monkeypatch.setattr(sink, "sunk_inputs", partial(sink.sunk_inputs, queue=host_queue))
    run_phase(data, together, *flags, *SUNK)
    seconds = [entry["seconds"] for entry in curve(together)]
    groups = [range(3), range(3, 5), range(5, 7), range(7, 10)]
    assert [seconds[group[0]] for group in groups for _ in group] == seconds
    assert logged(together) == logged(one_by_one)
    files = [
        path.relative_to(one_by_one) for path in one_by_one.rglob("*.*") if path.suffix in (".safetensors", ".json")
    ]
    assert len(files) >= 6
    for file in files:
        assert (together / file).read_bytes() == (one_by_one / file).read_bytes(), file


def test_a_divergence_among_losses_read_together_ends_the_run_where_it_is(data, tmp_path):
    flags = ("--train_steps", 6, "--save_checkpoint_steps", 0, "--optimizer.learning_rate", 1e30,
             "--optimizer.warmup_steps", 0)  # fmt: skip
    ends = []
    for count in (1, 6):
        run = tmp_path / str(count)
        with pytest.raises(UserError, match="training has diverged") as error:
            run_phase(data, run, *flags, "--data_sink_steps", count)
        ends.append((str(error.value), logged(run)))
        assert not (run / "checkpoints").exists() and not (run / "last").exists()
    assert ends[0] == ends[1]
    assert 0 < len(ends[0][1]) < 5


def test_features_that_do_not_fit_are_refused(data, tmp_path):
    write_network(tmp_path / "short.json", max_position_embeddings=32)
    with pytest.raises(UserError, match="rows of 64 tokens; the network has positions for 32"):
        train(data, tmp_path / "run", "--network", tmp_path / "short.json")
    with pytest.raises(UserError, match="no such file or folder"):
        train(data, tmp_path / "run", "--data_dir", tmp_path / "nothing")
