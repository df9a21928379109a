"""run_distribute_finetune.sh: what it starts, with msrun and from a rank table; the training is a stand-in."""

import pytest

from tests.recipes.test_pretrain_scripts import user  # noqa: F401

SCRIPT, TRAINING = "run_distribute_finetune", "models.bert.run_classifier"


def test_the_line_of_msrun(user):  # noqa: F811
    line = user.printed(SCRIPT, "4 models.ernie.run_mrc --recipe cmrc --worker_num 8 --node_rank 1 --master_addr a")
    assert line == (
        "msrun --worker_num 8 --local_worker_num 4 --master_addr a --master_port 8118 --node_rank 1 "
        "--log_dir LOG_node1 --join True --tail_worker_log 4 python3 -m models.ernie.run_mrc --distribute true "
        "--recipe cmrc"
    )


def test_the_ranks_of_a_table(user):  # noqa: F811
    code, out, errors = user.run(SCRIPT, f"hccl.json {TRAINING} --hccn_config_file hccn.conf --recipe xnli")
    assert (code, errors) == (0, ""), out
    started = user.calls()
    assert sorted(started) == ["1", "2"]
    for rank, device in (("1", "1"), ("2", "10")):
        given = started[rank]["given"]
        assert given == {
            "recipe": "xnli", "distribute": "true", "device_target": "Ascend", "device_id": device, "device_num": "3",
        }  # fmt: skip
        assert started[rank]["module"] == TRAINING and started[rank]["environment"]["RANK_SIZE"] == "3"
        assert user.log(f"LOG{device}/finetune_log.txt") == f"epoch: 0, rank {rank}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "0 arguments before the first flag"),
        ("2", "1 arguments before the first flag"),
        ("2 models.bert.run_pretrain", "models.bert.run_pretrain: no module that fine-tunes"),
        ("2 models.bert.run_mrc", "models.bert.run_mrc: no module that fine-tunes"),
        ("0 models.bert.run_ner", "DEVICE_NUM must be at least 1, got 0"),
        (
            "absent.json models.bert.run_classifier",
            "absent.json: no such rank table; python -m models.common.launch.rank",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(user, arguments, says):  # noqa: F811
    code, out, errors = user.run(SCRIPT, arguments)
    assert (code, out) == (2, "") and errors.startswith("error: ") and says in errors
