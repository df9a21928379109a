"""The comparisons of fine-tuning: both sides on tiny data and weights, the table of their results, the peer's CRF."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mindspore import Tensor
from transformers import BertConfig, BertModel

from benchmarks import finetune_cases, finetune_suite, finetune_table, our_finetune, peer_finetune, table
from benchmarks.peer_squad_finetune import make_optimizer
from benchmarks.torch_tagger import BertTagger
from benchmarks.torch_tagger import Crf as TorchCrf
from models.bert.migrate import main as migrate
from models.common.errors import UserError
from models.common.files import read_json
from models.common.nn.crf import Crf
from tests.tolerances import TOLERANCES

REPOSITORY = Path(__file__).resolve().parents[2]
SENTENCES = ("浙商银行的叶老桂", "叶老桂在浙江", "他去了上海银行", "浙江的银行", "上海银行的叶老桂")
ENTITIES = {"name": "叶老桂", "company": "银行", "address": "浙江"}


def write_weights(folder: Path, numbered: bool = False) -> Path:
    """A tiny BERT in Hugging Face's format whose vocabulary is the characters of the sentences; numbered as ERNIE's."""
    torch.manual_seed(5)
    characters = sorted({character for sentence in SENTENCES for character in sentence})
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters]
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=512,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    lines = [f"{token}\t{number}" if numbered else token for number, token in enumerate(tokens)]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def write_data(folder: Path) -> Path:
    """Files of the layouts that the suite reads, twenty sentences each."""
    (folder / "tnews").mkdir(parents=True)
    (folder / "cluener").mkdir()
    news, tagged = [], []
    for number in range(20):
        text = SENTENCES[number % len(SENTENCES)]
        news.append({"sentence": text, "label": ("100", "101")[number % 2], "label_desc": "news", "keywords": ""})
        label = {
            kind: {entity: [[text.index(entity), text.index(entity) + len(entity) - 1]]}
            for kind, entity in ENTITIES.items()
            if entity in text
        }
        tagged.append({"text": text, "label": label})
    for name, lines in (
        ("tnews/train_few_all.json", news), ("tnews/dev_few_all.json", news), ("cluener/train.json", tagged),
    ):  # fmt: skip
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_ernie_data(folder: Path) -> Path:
    """Forty pairs of sentences as in XNLI, twenty questions in each file of reading comprehension."""
    relations = ("contradiction", "entailment", "neutral")
    pairs = [(SENTENCES[n % 5], SENTENCES[n % 3], relations[n % 3]) for n in range(40)]
    rows = ["\t".join(row) for row in (("text_a", "text_b", "label"), *pairs)]
    paragraphs = []
    for number, text in enumerate(SENTENCES * 4):
        answer = {"text": text[-2:], "answer_start": len(text) - 2}
        paragraphs.append({"context": text, "qas": [{"id": f"q{number}", "question": "叶老桂在", "answers": [answer]}]})
    dataset = json.dumps({"version": "v1.0", "data": [{"title": "", "paragraphs": paragraphs}]})
    files = {"xnli/dev.tsv": "\n".join(rows) + "\n"}
    files |= dict.fromkeys(("cmrc2018/train.json", "cmrc2018/trial.json", "drcd/DRCD_dev.json"), dataset)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> tuple[Path, list[str]]:
    """The results' folder, and the command; of the three heads of CLUENER two."""
    assert finetune_cases.CASES["cluener"].heads == tuple(finetune_cases.HEAD_FLAGS)
    folder = tmp_path_factory.mktemp("suite")
    command = [
        "--data_dir", write_data(folder / "data"), "--chinese_weights", write_weights(folder / "weights"),
        "--output_dir", folder / "out", "--tasks", "tnews", "cluener", "--seeds", 3, "--threads", 1,
        "--heads", "linear", "lstm-crf",
    ]  # fmt: skip
    command = [str(value) for value in command]
    finetune_suite.main(command)
    return folder / "out", command


def test_every_run_has_a_result_and_every_pair_a_row(suite, capsys):
    results = sorted(suite[0].glob("*/*/result.json"))
    assert len(results) == 2 * (1 + 2)
    finetune_table.main([str(path) for path in results])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[2:5]] == [
        ["TNEWS (FewCLUE)", "linear", "accuracy"],
        ["CLUENER, a tenth of train held out", "BiLSTM + CRF", "f1"],
        ["CLUENER, a tenth of train held out", "linear", "f1"],
    ]
    for path in results:
        result = read_json(path)
        epochs = {"tnews": 5, "cluener": 2}[path.parts[-3]]
        assert len(result["epochs"]) == epochs
        assert result["samples"] == {"tnews": [20, 20], "cluener": [18, 2]}[path.parts[-3]]
        losses = result["losses"]
        assert len(losses) == result["steps"] and losses[-1] < losses[0]


@pytest.fixture(scope="module")
def ernie_suite(tmp_path_factory) -> Path:
    """The results' folder of ERNIE: a classification, and reading comprehension with a transfer."""
    folder = tmp_path_factory.mktemp("ernie_suite")
    finetune_suite.main([str(value) for value in (
        "--family", "ernie", "--data_dir", write_ernie_data(folder / "data"), "--chinese_weights",
        write_weights(folder / "weights", numbered=True), "--output_dir", folder / "out", "--tasks", "cmrc_small",
        "xnli_small", "--seeds", 3, "--threads", 1,
    )])  # fmt: skip
    return folder / "out"


def test_ernies_rows_have_reading_comprehension_and_its_transfer(ernie_suite, capsys):
    results = sorted(ernie_suite.glob("*/*/result.json"))
    assert [path.parent.name for path in results] == ["ours-linear-3", "peer-linear-3"] * 2
    finetune_table.main([str(path) for path in results])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert [row[:3] for row in rows[2:5]] == [
        ["XNLI, 40 % of the premises of dev held out", "linear", "accuracy"],
        ["CMRC 2018, a tenth of train, a quarter of trial", "linear", "f1"],
        ["DRCD, a twentieth of dev, by the model of CMRC 2018", "linear", "f1"],
    ]
    for path in results:
        result, name = read_json(path), path.parts[-3]
        assert result["samples"] == {"xnli_small": [24, 16], "cmrc_small": [2, 5]}[name]
        assert len(result["epochs"]) == {"xnli_small": 3, "cmrc_small": 2}[name]
        if name == "cmrc_small":
            assert 0 <= result["transfer"]["f1"] <= 100 and "average" in result["epochs"][-1]


def test_both_sides_decode_the_same_answers_of_the_same_weights(ernie_suite, tmp_path):
    """The peer's network with the weights that ours ended with."""
    run = ernie_suite / "cmrc_small/ours-linear-3/run"
    migrate(["--from", "canonical", "--to", "hf", str(run / "last"), str(tmp_path / "hf")])
    args = peer_finetune.parse([str(value) for value in (
        "--family", "ernie", "--command", "run_mrc", "--recipe", "cmrc_small", "--weights", tmp_path / "hf",
        "--train", ernie_suite / "cmrc_small/train", "--dev", ernie_suite / "cmrc_small/dev",
        "--dev_json", ernie_suite / "cmrc_small/dev.json", "--output_dir", tmp_path,
    )])  # fmt: skip
    peer = peer_finetune.Peer(args, peer_finetune.settings_of_recipe(args))
    last = our_finetune.measured(run)["epochs"][-1]
    found = {name: value for name, value in peer.score().items() if name != "skip"}  # which is not logged
    assert found == {name: last[name] for name in found} and found["total"] == 5


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--command", "run_mrc"], "--dev_json is needed here: it goes with run_mrc"),
        (["--command", "run_ner", "--dev_json", "a.json"], "--dev_json has no use here"),
        (["--command", "run_ner", "--transfer_json", "a.json"], "--transfer_json has no use here: it goes with --tran"),
        (["--command", "run_ner", "--transfer", "a", "--transfer_json", "a.json"], "--transfer is for run_mrc"),
    ],
)
def test_answers_are_for_reading_comprehension(flags, message):
    common = ["--family", "ernie", "--train", "a", "--dev", "b", "--output_dir", "c", "--recipe", "cmrc_small"]
    with pytest.raises(UserError, match=message):
        our_finetune.config_of(our_finetune.parse([*common, *flags]))


def test_tasks_of_another_family_are_refused(tmp_path):
    command = ["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--tasks", "tnews", "xnli_small"]
    with pytest.raises(UserError, match="--tasks xnli_small: not of the family bert; it has cola, tnews"):
        finetune_suite.main(command)


def test_heads_that_no_task_has_are_refused(tmp_path):
    command = ["--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "out"), "--tasks", "tnews", "--heads", "crf"]
    with pytest.raises(UserError, match="--heads crf: none of tnews has such a head"):
        finetune_suite.main(command)
    assert not (tmp_path / "out").exists()


def test_no_premise_is_in_both_parts(ernie_suite):
    parts = [(ernie_suite / f"xnli_small/{part}.tsv").read_text().splitlines() for part in ("train", "dev")]
    premises = [{row.split("\t")[0] for row in rows[1:]} for rows in parts]
    assert [len(found) for found in premises] == [3, 2] and not premises[0] & premises[1]
    rows = (ernie_suite.parent / "data/xnli/dev.tsv").read_text().splitlines()
    assert sorted([*parts[0][1:], *parts[1]]) == sorted(rows) and parts[0][0] == parts[1][0]


def test_a_part_of_a_file_in_another_layout_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"data": [{"paragraphs": [{}]}]}')
    with pytest.raises(UserError, match=r"a\.json: not in SQuAD layout: KeyError"):
        finetune_cases.part_of_questions(tmp_path / "a.json", tmp_path / "b.json", "0.5")


def test_what_is_finished_is_not_run_again(suite, capfd):
    finetune_suite.main(suite[1])
    assert capfd.readouterr().out == ""


def test_results_of_other_settings_are_not_kept(suite, tmp_path):
    """As after a change of the recipe."""
    folder = shutil.copytree(suite[0], tmp_path / "out")
    change(folder / "tnews/peer-linear-3/result.json", common={"epoch_num": 2})
    command = [str(folder) if value == str(suite[0]) else value for value in suite[1]]
    with pytest.raises(UserError, match=r"peer-linear-3: was made with other epoch_num; remove it"):
        finetune_suite.main(command)


def change(path: Path, common: dict | None = None, **values: object) -> None:
    result = read_json(path)
    path.write_text(json.dumps({**result, **values, "common": {**result["common"], **(common or {})}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finished": False}, "has not finished"),
        ({"common": {"train": "other"}}, "differ in train"),
        ({"common": {"weights": ["other"], "epoch_num": 1}}, "differ in epoch_num, weights"),
        (
            {"settings": {"recipe": "tnews", "seed": 4, "use_crf": "false", "with_lstm": "false"}},
            r"seeds \[3\] of ours",
        ),
        ({"settings": {"recipe": "quickstart"}}, "'quickstart' has no row"),
        ({"settings": {}}, "is no result of our_finetune or peer_finetune"),
        ({"epochs": []}, "is no result of our_finetune or peer_finetune"),
    ],
)
def test_what_cannot_be_compared_is_refused(suite, tmp_path, changes, message):
    [ours], [peer] = (list(suite[0].glob(f"tnews/{side}-*/result.json")) for side in ("ours", "peer"))
    changed = Path(shutil.copy(peer, tmp_path / "result.json"))
    change(changed, **changes)
    with pytest.raises(UserError, match=message):
        finetune_table.main([str(ours), str(changed)])


def test_one_side_alone_is_refused(suite):
    [ours] = suite[0].glob("tnews/ours-*/result.json")
    with pytest.raises(UserError, match=r"tnews, linear: seeds \[3\] of ours, \[\] of the peer"):
        finetune_table.main([str(ours)])


def test_a_failing_run_ends_the_suite(suite, tmp_path):
    command = [str(tmp_path / "absent") if value == suite[1][3] else value for value in suite[1]]
    command[command.index(str(suite[0]))] = str(tmp_path / "out")
    with pytest.raises(UserError, match=r"data_tools\.convert ended with exit code 2"):
        finetune_suite.main(command)


def test_heads_of_the_peer_learn_at_their_own_rate(tmp_path):
    model = BertTagger(str(write_weights(tmp_path)), 3, use_crf=True, with_lstm=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = make_optimizer(model, 1e-4, 0.01, 1e-3).param_groups
    found = {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found.keys() == set(names.values())
    for name, (rate, decay) in found.items():
        assert rate == (1e-4 if name.startswith("bert.") else 1e-3), name
        plain = "bias" in name or "LayerNorm" in name or name in ("crf.start", "crf.end")
        assert decay == (0.0 if plain else 0.01), name


def test_the_peer_has_the_settings_of_the_recipe():
    flags = ["--train", "a", "--dev", "b", "--output_dir", "c", "--recipe", "cluener", "--command", "run_ner"]
    config = peer_finetune.settings_of_recipe(peer_finetune.parse([*flags, "--use_crf", "true"]))
    assert (config.use_crf, config.with_lstm, config.optimizer.head_learning_rate) == (True, False, 1e-3)
    classifier = [*flags[:-1], "run_classifier", "--use_crf", "true"]
    with pytest.raises(UserError, match="are for run_ner"):
        peer_finetune.settings_of_recipe(peer_finetune.parse(classifier))


def test_the_peers_field_is_ours():
    """Loss and best path of one sample of 9 tokens and 5 labels."""
    rng = np.random.default_rng(8)
    scores, labels = rng.normal(size=(9, 5)).astype(np.float32), rng.integers(0, 5, 9).astype(np.int32)
    theirs, ours = TorchCrf(5, 1.0), Crf(5)
    for parameter in ours.trainable_params():
        values = rng.normal(size=parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(values))
        getattr(theirs, parameter.name).data = torch.tensor(values)
    places = Tensor(np.ones((1, 9), np.int32)), Tensor(np.arange(9, dtype=np.int32)[None])
    loss = ours.loss(Tensor(scores[None]), Tensor(labels[None]), *places)
    wanted = theirs.negative_log_likelihood(torch.tensor(scores), torch.tensor(labels, dtype=torch.long))
    rtol, atol, _ = TOLERANCES["loss"]
    np.testing.assert_allclose(loss.asnumpy(), wanted.detach().numpy(), rtol, atol)
    path = ours(Tensor(scores[None]), *places).asnumpy()[0]
    assert path.tolist() == theirs.best_path(torch.tensor(scores))


@pytest.mark.parametrize("page", ["bert/README.md", "bert/README_CN.md"])
def test_the_published_table_is_that_of_the_stored_results(page):
    family, path = page.split("/")[0], REPOSITORY / "models" / page
    stored = sorted((REPOSITORY / "benchmarks/results/finetune" / family).glob("*.json"))
    assert stored
    assert table.insert(finetune_table.table(stored), path) == path.read_text(encoding="utf-8")
    for result in stored:
        assert not re.search(r'["\s=]/\w', result.read_text(encoding="utf-8")), f"{result}: holds an absolute path"
