"""ERNIE's scripts one after the other, each from where the one before left off: weights, data, training, score, export,
C++; and what each of them starts for every task."""

import json
import shlex
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from data_tools.feature_store import load_features, read_sidecar
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.export.manifest import read_manifest
from models.common.files import read_json
from models.ernie import preprocess
from tests.launching import hccn_lines, table_of
from tests.pretraining import write_corpus, write_features, write_network
from tests.record_files import write_columns
from tests.tiny import write_weights

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SENTENCES = ("房间很大。很喜欢。", "早餐太差。不喜欢。", "服务员很好。", "位置不好。太吵。", "上海的叶老桂在北京大学。")
TAGS = ("B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O")
ENTITIES = {"上海": "LOC", "叶老桂": "PER", "北京大学": "ORG"}
# TASK_TYPE -> its command, its folder in the task data, tokens of a row, the part that is scored at the end.
TASKS = {
    "chnsenticorp": ("run_classifier", "chnsenticorp", 256, "test"),
    "msra_ner": ("run_ner", "msra_ner", 256, "test"),
    "xnli": ("run_classifier", "xnli", 512, "test"),
    "dbqa": ("run_classifier", "nlpcc-dbqa", 512, "test"),
    "drcd": ("run_mrc", "drcd", 512, "test"),
    "cmrc": ("run_mrc", "cmrc2018", 512, "dev"),
}
RAN = {"chnsenticorp": (), "msra_ner": ("--use_crf", "true"), "cmrc": ()}  # with flags of the training
CONFIG = EncoderConfig(
    vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=513, hidden_act="relu", layer_norm_eps=1e-5,
)  # fmt: skip


def script(name: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPTS / f"{name}.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def done(name: str, folder: Path, *arguments: object) -> str:
    """Standard output of a script that succeeds."""
    finished = script(name, folder, *arguments)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def write_vocab(path: Path) -> Path:
    """As ERNIE's is published: token and id on each line."""
    characters = sorted({character for sentence in SENTENCES for character in sentence})
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *characters]
    path.write_text("".join(f"{token}\t{number}\n" for number, token in enumerate(tokens)), encoding="utf-8")
    return path


def write_task_data(folder: Path) -> None:
    """Three of the tasks in Baidu's layout, the test part of CMRC missing as there."""
    lines = {"chnsenticorp": ["label\ttext_a"], "msra_ner": ["text_a\tlabel"]}
    for number in range(24):
        text = SENTENCES[number % len(SENTENCES)]
        lines["chnsenticorp"].append(f"{number % 2}\t{text}")
        tags = ["O"] * len(text)
        for entity, kind in ENTITIES.items():
            if entity in text:
                at = text.index(entity)
                tags[at : at + len(entity)] = [f"B-{kind}", *[f"I-{kind}"] * (len(entity) - 1)]
        lines["msra_ner"].append("\x02".join(text) + "\t" + "\x02".join(tags))
    questions = [
        {"context": f"{text}{text}", "qas": [
            {"id": f"q{n}", "question": "叶老桂在哪", "answers": [{"text": text[2:6], "answer_start": 2}]},
        ]} for n, text in enumerate(SENTENCES)
    ]  # fmt: skip
    for task, rows in lines.items():
        (folder / task).mkdir(parents=True)
        for part in ("train", "dev", "test"):
            (folder / task / f"{part}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "msra_ner/label_map.json").write_text(json.dumps({tag: number for number, tag in enumerate(TAGS)}))
    (folder / "cmrc2018").mkdir()
    for part in ("train", "dev"):
        dataset = {"version": "v1.0", "data": [{"title": "", "paragraphs": questions}]}
        (folder / f"cmrc2018/{part}.json").write_text(json.dumps(dataset), encoding="utf-8")


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """The caller's folder, with weights as migrate_pretrained_models.sh writes them and the task data."""
    folder = tmp_path_factory.mktemp("ernie")
    write_weights(folder / "random", write_vocab(folder / "vocab.txt"), CONFIG, groups=("pooler",))
    done("migrate_pretrained_models", folder, "--from", "canonical", "--dir", "random")
    write_task_data(folder / "data/task_data")
    return folder


@pytest.fixture(scope="module", params=RAN)
def exported(request, here) -> tuple[str, Path]:
    """A task through conversion, training and export."""
    task, (_, folder, _, _) = request.param, TASKS[request.param]
    output = script("convert_finetune_datasets", here, f"data/task_data/{folder}", f"data/{folder}", task,
                    "--dataset_format", "numpy")  # fmt: skip
    assert output.returncode == 0, output.stdout + output.stderr
    skipped = f"data/task_data/{folder}/test.json: not there, skipped" if task == "cmrc" else ""
    assert output.stderr.strip() == skipped
    assert "features" in (here / "convert_finetune_log.txt").read_text()
    done("run_standalone_finetune", here, task, "--epoch_num", "1", "--train_batch_size", "6", *RAN[task])
    done("export", here, f"save_models/{task}", f"export/{task}", task)
    return task, here


def test_a_task_from_its_data_to_the_score_in_cpp(exported):
    task, here = exported
    command, folder, length, scored = TASKS[task]
    run = here / "save_models" / task
    for part in ("train", "dev", "test")[: 2 if task == "cmrc" else 3]:
        info = read_sidecar(here / f"data/{folder}/{task}_{part}")
        assert info["max_seq_length"] == length and info["tokenizer"]["vocab_size"] < CONFIG.vocab_size
    assert "24 samples" in (log := (here / f"ms_log/{task}_train_log.txt").read_text()) or "5 samples" in log

    done("run_finetune_eval", here, task)
    scores = read_json(run / scored / "eval.json")
    log = (here / f"ms_log/{task}_eval_log.txt").read_text()
    assert f"save_models/{task}/best/model.safetensors: taken for canonical" in log

    manifest = read_manifest(here / "export" / task)
    assert (manifest.model.name, manifest.task["max_seq_length"]) == ("ernie", length)
    labels, data = "", f"data/{folder}/{task}_{scored}"
    if task == "msra_ner":
        labels = "data/task_data/msra_ner/label_map.json"
        assert manifest.labels == TAGS and [output.name for output in manifest.outputs] == ["tag_ids"]
    if task == "cmrc":
        data = f"data/task_data/{folder}/{scored}.json"
        assert (manifest.task["assessment_method"], manifest.task["max_answer_length"]) == ("cmrc", 100)
    arguments = [f"export/{task}/{task}.mindir", labels, data, "json" if task == "cmrc" else "numpy", "",
                 "True" if task == "msra_ner" else "false", "y", 0, "--output_dir", f"infer/{task}"]  # fmt: skip
    done("run_infer_310", here, *arguments)
    found = read_json(here / f"infer/{task}/eval.json")
    compared = [name for name in scores if not name.endswith("_per_second") and isinstance(scores[name], float)]
    assert compared and {name: found[name] for name in compared} == pytest.approx(
        {name: scores[name] for name in compared}
    )
    said = json.loads((here / f"infer/{task}/acc.log").read_text())
    assert said.keys() & {"accuracy", "f1"} and read_json(run / "eval.json").keys() == scores.keys()
    assert command == f"run_{log_name(manifest.task['name'])}"
    disagreeing(here, arguments, task)


def log_name(task: str) -> str:
    return {"classification": "classifier", "tagging": "ner", "span": "mrc"}[task]


def disagreeing(here: Path, arguments: list, task: str) -> None:
    """The same with what the manifest says otherwise."""
    other_crf = "false" if task == "msra_ner" else "true"
    (here / "other.json").write_text(json.dumps({"a": 0, "b": 1}))
    refused = {
        5: (other_crf, f"--use_crf {other_crf}: the model has"),
        1: ("other.json", "--label_file_path other.json"),
    }
    for position, (value, message) in refused.items():
        changed = [*arguments]
        changed[position], changed[-1] = value, "nowhere"
        output = script("run_infer_310", here, *changed)
        assert (output.returncode, output.stdout) == (2, "") and message in output.stderr
        assert not (here / "nowhere").exists()
    changed = [*arguments[:-1], "elsewhere"]
    if task == "chnsenticorp":
        changed[3] = "mindrecord"
        output = script("run_infer_310", here, *changed)
        assert output.returncode == 2 and "is numpy, not mindrecord" in output.stdout


def test_weights_of_no_run_get_the_lengths_of_the_task(exported):
    task, here = exported
    line = done("export", here, f"save_models/{task}/best", "out", task, "--print")
    assert "--max_seq_length" not in line
    line = done("export", here, "random", "out", task, "--print", "--packed", "false")
    assert f"--max_seq_length {TASKS[task][2]}" in line and line.endswith("--packed false\n")
    assert ("--doc_stride 128 --stride_is step --max_answer_length 100 --assessment_method cmrc" in line) == (
        task == "cmrc"
    )


def test_features_made_elsewhere(exported, tmp_path):
    """Of the tasks with labels a TFRecord of neither a telling name nor a sidecar; questions are none."""
    task, here = exported
    _, folder, length, scored = TASKS[task]
    command = ["--manifest", str(here / "export" / task), "--result_path", str(tmp_path / "samples"),
               "--dataset_format", "tfrecord"]  # fmt: skip
    if task == "cmrc":
        with pytest.raises(UserError, match="questions are JSON; leave --schema_file_path and --dataset_format out"):
            preprocess.main([*command, "--eval_json_path", str(here / f"data/task_data/{folder}/dev.json")])
        return
    features = load_features(here / f"data/{folder}/{task}_{scored}")
    padded = features.padded(range(len(features)), length)
    label = padded["tag_id"] if task == "msra_ner" else padded["label"][:, None]
    columns = {"input_ids": padded["input_ids"], "input_mask": padded["attention_mask"],
               "segment_ids": padded["token_type_ids"], "label_ids": label}  # fmt: skip
    data = write_columns(tmp_path / "features.bin", {name: array.astype(np.int64) for name, array in columns.items()})
    schema = {name: {"type": "int64", "rank": 1, "shape": [array.shape[1]]} for name, array in columns.items()}
    for name, wrong in (("right.json", 0), ("wrong.json", 1)):
        schema["input_ids"]["shape"] = [length + wrong]
        text = {"datasetType": "TF", "numRows": len(features), "columns": schema}
        (tmp_path / name).write_text(json.dumps(text))
    command += ["--eval_data_file_path", str(data), "--schema_file_path"]
    with pytest.raises(UserError, match="column input_ids holds 256 values where 257 are expected"):
        preprocess.main([*command, str(tmp_path / "wrong.json")])
    preprocess.main([*command, str(tmp_path / "right.json")])
    assert len(list((tmp_path / "samples/00_data").iterdir())) == len(features)


def parsed(line: str, module: str) -> object:
    """What the module named in a printed line makes of its flags."""
    words = shlex.split(line)
    at = words.index(module)
    assert words[at - 1] == "-m"
    command = import_module(module)
    return command.parse(words[at + 1 :])


@pytest.mark.parametrize("task", TASKS)
def test_what_is_started_for_each_task(task, tmp_path):
    command, folder, length, scored = TASKS[task]
    module = f"models.ernie.{command}"
    config = parsed(done("run_standalone_finetune", tmp_path, task, "--seed", "5", "--print"), module)
    assert (config.train_data_file_path, config.eval_data_file_path) == (
        f"data/{folder}/{task}_train", f"data/{folder}/{task}_dev",
    )  # fmt: skip
    assert (config.do_train, config.do_eval, config.seed, config.max_seq_length) == (True, True, 5, length)
    assert config.load_pretrain_checkpoint_path == "pretrained_models/ernie_1.0_mindspore"
    assert config.save_finetune_checkpoint_path == f"save_models/{task}"
    if command == "run_mrc":
        assert config.eval_json_path == f"data/task_data/{folder}/dev.json" and config.assessment_method == "cmrc"
    small = parsed(
        done("run_standalone_finetune", tmp_path, task, "--print", "--", "--recipe", f"{task}_small"), module
    )
    assert small.optimizer.learning_rate == 1e-4
    for own in (config, small):  # both fit the features of convert_finetune_datasets.sh
        assert own.max_seq_length == length
        if command == "run_mrc":
            assert (own.doc_stride, own.stride_is, own.max_query_length) == (128, "step", 64)

    line = done("run_distribute_finetune", tmp_path, 2, task, "--print", "--master_port", "9000")
    assert line.startswith("msrun --worker_num 2 --local_worker_num 2 --master_addr 127.0.0.1 --master_port 9000 ")
    config = parsed(line, module)
    assert (config.distribute, config.device_target, config.save_finetune_checkpoint_path) == (
        True, "CPU", f"save_models/{task}",
    )  # fmt: skip

    (tmp_path / "config.yaml").write_text("do_train: true\ndistribute: true\ndevice_num: 8\nmax_seq_length: 40\n")
    config = parsed(done("run_finetune_eval", tmp_path, task, "--run_dir", tmp_path, "--print"), module)
    assert (config.do_train, config.distribute, config.device_num, config.max_seq_length) == (False, False, 1, 40)
    assert config.eval_data_file_path == f"data/{folder}/{task}_{scored}"
    assert config.load_finetune_checkpoint_path == str(tmp_path / "best")
    assert config.save_finetune_checkpoint_path == str(tmp_path / scored)

    line = done("export", tmp_path, "x.ckpt", "out", task, "--print")
    head = {"run_classifier": "classifier", "run_ner": "ner", "run_mrc": "squad"}[command]
    assert f" models.ernie.export --export_ckpt_file x.ckpt --export_file_name out/{task} --task {head} " in line


@pytest.mark.parametrize("task", TASKS)
def test_how_each_task_is_converted(task, tmp_path):
    length = TASKS[task][2]
    suffix = "json" if task in ("drcd", "cmrc") else "tsv"
    for part in ("train", "test"):
        (tmp_path / f"{part}.{suffix}").write_text("")
    output = script("convert_finetune_datasets", tmp_path, tmp_path, "out", task, "--print", "--overwrite", "true")
    assert (output.returncode, output.stderr) == (0, f"{tmp_path}/dev.{suffix}: not there, skipped\n")
    train, test = output.stdout.splitlines()
    for line, part in ((train, "train"), (test, "test")):
        assert f"--input_file {tmp_path}/{part}.{suffix} --output_dir out/{task}_{part} " in line
        assert f"--max_seq_length {length} " in line and line.endswith("--overwrite true")
    assert ("--max_query_length 64 --doc_stride 128 --stride_is step" in train) == (suffix == "json")
    assert ("--is_training true --skip_misaligned true" in train) == (suffix == "json") == ("training false" in test)
    assert ("--label_file_path" in train) == (task == "msra_ner")


def test_the_ranks_of_a_table(tmp_path):
    (tmp_path / "hccn.conf").write_text(hccn_lines(2, 2))
    (tmp_path / "table.json").write_text(json.dumps(table_of({1: [0], 2: [0, 1]})))
    lines = done(
        "run_distribute_finetune", tmp_path, "table.json", "dbqa", "--hccn_config_file", "hccn.conf", "--print"
    )
    assert lines.count("--device_target Ascend") == lines.count("--recipe dbqa") == 2


def test_pretraining(tmp_path, minilm_dir):
    vocab = minilm_dir / "vocab.txt"
    data = write_features(tmp_path / "corpus", write_corpus(tmp_path / "corpus.txt"), vocab, shards=1)
    config = parsed(done("run_standalone_pretrain", tmp_path, 0, 3, data, "--print"), "models.ernie.run_pretrain")
    assert (config.epoch_size, config.network, config.train_batch_size) == (3, "base", 16)
    network = write_network(tmp_path / "network.json", hidden_act="relu", layer_norm_eps=1e-5)
    done("run_standalone_pretrain", tmp_path, 0, 1, data, "--network", network, "--train_steps", 1,
         "--vocab_file_path", vocab, "--save_checkpoint_path", "run")  # fmt: skip
    assert (tmp_path / "run/checkpoint_ernie.ckpt").is_file() and (tmp_path / "pretraining_log.txt").is_file()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run_standalone_finetune", "0 arguments before the first flag"),
        (
            "run_standalone_finetune sst2",
            "TASK_TYPE must be one of chnsenticorp, msra_ner, xnli, dbqa, drcd, cmrc, got s",
        ),
        ("run_distribute_finetune xnli", "1 arguments before the first flag"),
        ("run_distribute_finetune none.json xnli", "none.json: no such rank table"),
        (
            "run_distribute_finetune xnli none.json",
            "TASK_TYPE must be one of chnsenticorp, msra_ner, xnli, dbqa, drcd,",
        ),
        ("run_distribute_finetune 02 xnli", "DEVICE_NUM must be a number, got 02"),
        ("run_finetune_eval cmrc", "save_models/cmrc: no finished run; bash scripts/run_standalone_finetune.sh cmrc"),
        ("convert_finetune_datasets a b", "2 arguments before the first flag"),
        ("convert_finetune_datasets a b dbqa", "a: no such folder; scripts/download_datasets.sh finetune makes data"),
        ("convert_finetune_datasets . b drcd", ".: no train.json, dev.json or test.json"),
        ("export a b", "2 arguments before the first flag"),
        ("export a b xnli", "a: no such weights"),
        ("run_standalone_pretrain zero 1 data", "DEVICE_ID must be a number, got zero"),
        ("run_infer_310 . '' . json '' maybe y", "USE_CRF must be true or false, got maybe"),
        ("run_infer_310 . '' . csv '' true y", "DATASET_FORMAT must be mindrecord, tfrecord, numpy or json, got csv"),
        ("run_infer_310 . labels . numpy '' true y", "labels: no such labels"),
        ("run_infer_310 . '' . numpy schema true y", "SCHEMA_PATH is for tfrecord alone; give ''"),
        ("run_infer_310 . '' . tfrecord schema true y", "schema: no such schema"),
        ("run_infer_310 . '' . json '' true y", "is no JSON file"),
        ("run_infer_310 . '' . numpy '' true y first", "DEVICE_ID must be a number, got first"),
        ("run_infer_310 . '' . numpy '' true y --device_target TPU", "DEVICE_TARGET must be CPU or Ascend, got TPU"),
        ("run_infer_310 . . y --output_dir out", "--device_target and --output_dir are arguments 4 and 6 here"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(line, message, tmp_path):
    name, *arguments = shlex.split(line)
    output = script(name, tmp_path, *arguments)
    assert (output.returncode, output.stdout) == (2, "") and message in output.stderr
    assert not any(tmp_path.iterdir())
