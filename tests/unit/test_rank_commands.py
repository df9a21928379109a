"""From a rank table and hyper_parameter_config.ini to the command lines of this machine, as bash reads them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.common.errors import UserError
from models.common.launch import rank_commands
from models.common.launch.command_lines import Command, read_commands, to_line, to_text
from models.common.launch.rank_commands import spell_cores
from models.common.launch.rank_table import parse_rank_table
from tests.launching import REPOSITORY, STAND_IN, calls, hccn_lines, table_of, until

SETTINGS = REPOSITORY / "scripts/ascend_distributed_launcher/hyper_parameter_config.ini"
SERVERS = {1: [0, 1], 12: [2, 9, 10, 11]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A machine with 16 devices, the second of two servers, in a folder whose name needs quotes."""
    folder = tmp_path / "my work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CALLS", str(folder / "calls"))
    (folder / "calls").mkdir()
    (folder / "train.py").write_text(STAND_IN)
    (folder / "hccn.conf").write_text(hccn_lines(12, 16))
    (folder / "hccl.json").write_text(json.dumps(table_of(SERVERS)))
    return folder


def launch(*further: str, switches: tuple[str, ...] = (), **changed: object) -> None:
    flags = {"run_script_dir": "train.py", "hyper_parameter_config_dir": SETTINGS, "data_dir": "wiki",
             "hccl_config_dir": "hccl.json", "hccn_config_file": "hccn.conf", **changed}  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    rank_commands.main([*words, *switches, "--", *further])


def run_lines(folder: Path) -> dict[str, dict]:
    """What bash starts of distributed_cmd.sh."""
    subprocess.run(["bash", "distributed_cmd.sh"], check=True, cwd=folder)
    until(lambda: len(calls(folder / "calls")) == 4)
    return calls(folder / "calls")


def test_bash_starts_a_process_for_each_device_of_this_machine(folder, capsys):
    launch("--train_steps", "10", hccl_time_out=600)
    assert [line.split()[:4] for line in capsys.readouterr().out.splitlines()] == [
        ["rank", f"{rank}:", "device", f"{device},"] for rank, device in enumerate(SERVERS[12], start=2)
    ]
    started = run_lines(folder)
    assert sorted(started) == ["2", "3", "4", "5"]
    for rank, device in enumerate(SERVERS[12], start=2):
        call = started[str(rank)]
        wanted = {
            "RANK_ID": str(rank), "DEVICE_ID": str(device), "RANK_SIZE": "6", "HCCL_CONNECT_TIMEOUT": "600",
            "RANK_TABLE_FILE": str(folder / "hccl.json"), "DEPLOY_MODE": "0", "GE_USE_STATIC_MEMORY": "1",
        }  # fmt: skip
        assert {name: call["environment"].get(name) for name in wanted} == wanted
        assert call["given"] == {
            "recipe": "pretrain_base", "compute_type": "float16",
            "distribute": "true", "epoch_size": "40", "enable_save_ckpt": "true", "enable_lossscale": "true",
            "do_shuffle": "true", "enable_data_sink": "false", "data_sink_steps": "1", "accumulation_steps": "1",
            "save_checkpoint_path": "./checkpoint/", "save_checkpoint_steps": "10000", "save_checkpoint_num": "1",
            "data_dir": str(folder / "wiki"), "train_steps": "10", "device_id": str(device), "device_num": "6",
        }  # fmt: skip
        assert call["folder"] == str(folder) and call["module"] is None
        assert (folder / f"LOG{device}/pretraining_log.txt").read_text() == f"epoch: 0, rank {rank}\n"


def test_logs_of_a_run_before_stay(folder):
    (folder / "LOG9").mkdir()
    (folder / "LOG9/pretraining_log.txt").write_text("of the run before\n")
    (folder / "LOG9/notes.txt").write_text("mine")
    launch()
    run_lines(folder)
    until(lambda: (folder / "LOG9/pretraining_log.txt").read_text() == "of the run before\nepoch: 0, rank 3\n")
    assert (folder / "LOG9/notes.txt").read_text() == "mine"


def commands_of(devices: list[int], cores: int) -> list[Command]:
    table = parse_rank_table(table_of({12: devices}), "hccl.json")
    return rank_commands.rank_commands(table, table.servers[0], ["train"], [], {}, range(cores))


def test_ranks_share_the_cores_in_the_order_of_their_devices():
    """Sixteen devices, in the order that text has: 0, 1, 10, 11, ...; the numbers of two are the original README's."""
    devices = sorted(range(16), key=str)
    commands = commands_of(devices, 192)
    assert [int(command.environment["DEVICE_ID"]) for command in commands] == [*range(16)]
    assert [int(command.environment["RANK_ID"]) for command in commands] == [devices.index(n) for n in range(16)]
    assert [command.words[:3] for command in commands[:3]] == [
        ("taskset", "-c", "0-11"), ("taskset", "-c", "12-23"), ("taskset", "-c", "24-35")]  # fmt: skip
    assert [command.words[2] for command in commands_of([5, 6], 192)] == ["0-95", "96-191"]
    # With fewer cores than ranks none is bound.
    assert [command.words[0] for command in commands_of([5, 6], 1)] == ["train", "train"]


def test_processes_are_bound_to_the_cores_that_this_one_may_use(folder):
    (folder / "hccl.json").write_text(json.dumps(table_of({12: [3]})))
    launch()
    cores = sorted(os.sched_getaffinity(0))
    [command] = read_commands(folder / "distributed_cmd.sh")
    assert command.words[:3] == ("taskset", "-c", spell_cores(cores))
    subprocess.run([*command.words], env={**os.environ, **command.environment}, check=True)
    assert calls(folder / "calls")["0"]["cores"] == cores
    launch(bind_core="false")
    [command] = read_commands(folder / "distributed_cmd.sh")
    assert command.words[:2] == (sys.executable, str(folder / "train.py"))


@pytest.mark.parametrize(
    ("cores", "text"), [([0], "0"), ([0, 1, 2, 8], "0-2,8"), ([3, 5, 6], "3,5-6"), (range(192), "0-191")]
)
def test_cores_are_spelled_as_taskset_takes_them(cores, text):
    assert spell_cores(cores) == text


def test_a_script_of_a_package_runs_as_its_module(folder):
    for part in ("zoo", "zoo/bert"):
        (folder / part).mkdir()
        (folder / part / "__init__.py").write_text("")
    (folder / "zoo/bert/train.py").write_text(f"import zoo.bert\n{STAND_IN}")
    launch(run_script_dir="zoo/bert/train.py")
    assert {call["module"] for call in run_lines(folder).values()} == {"zoo.bert.train"}


def test_print_writes_nothing(folder, capsys):
    before = sorted(folder.iterdir())
    launch(switches=("--print",))
    assert sorted(folder.iterdir()) == before
    printed = capsys.readouterr().out.splitlines()
    launch()
    assert (folder / "distributed_cmd.sh").read_text().splitlines()[1:] == printed and len(printed) == 4


def test_the_originals_name_is_a_way_in(folder):
    """From the command of the original's launcher README, with names of here."""
    script = SETTINGS.parent / "get_distribute_pretrain_cmd.py"
    done = subprocess.run(
        [sys.executable, script, "--run_script_dir", "./train.py", "--hyper_parameter_config_dir", SETTINGS,
         "--data_dir", "/path/dataset/", "--hccl_config_dir", "hccl.json", "--hccn_config_file", "hccn.conf"],
        capture_output=True, text=True, cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stderr
    commands = read_commands(folder / "distributed_cmd.sh")
    assert [command.name for command in commands] == ["rank 2", "rank 3", "rank 4", "rank 5"]
    # Its default, HCCL's own.
    assert commands[0].environment["HCCL_CONNECT_TIMEOUT"] == "120"


@pytest.mark.parametrize(
    ("ini", "says"),
    [
        ("[config]\ndevice_id=0\n", "own.ini: device_id is not set there; it comes from the rank table"),
        ("[config]\nepoch_size=1\ndevice_num=8\n", "own.ini: device_num is not set there"),
        ("[config]\ndata_dir=/data\n", "own.ini: data_dir is not set there"),
        ("[config]\nepoch_sise=1\n", "own.ini: the training script has no flag --epoch_sise"),
        ("[config]\nEpoch_size=1\n", "own.ini: the training script has no flag --Epoch_size"),
        ("[config]\ndistribute=false\n", "own.ini: distribute must be true, got false"),
        ("[config]\nepoch_size=1\nepoch_size=2\n", "'epoch_size' in section 'config' already exists"),
        ("[config]\nepoch_size\n", "own.ini: not an ini file"),
        ("epoch_size=1\n", "own.ini: not an ini file"),
        ("[settings]\nepoch_size=1\n", "own.ini: must have one section, [config]; it has 'settings'"),
        ("[DEFAULT]\nepoch_size=1\n[config]\ntrain_steps=2\n", "it has 'DEFAULT', 'config'"),
        ("", "must have one section, [config]; it has none"),
        ("[config]\nepoch_size=1\n  2\n", "a line break in its settings or paths"),
    ],
)
def test_settings_that_do_not_belong_there_are_refused_by_name(folder, ini, says):
    (folder / "own.ini").write_text(ini)
    with pytest.raises(UserError) as error:
        launch(hyper_parameter_config_dir="own.ini")
    assert says in str(error.value)
    assert not (folder / "distributed_cmd.sh").exists()


def test_settings_are_handed_on_as_they_stand(folder):
    (folder / "own.ini").write_text(
        "[config]\noptimizer.learning_rate = 1e-4\nschema_dir=\nsave_checkpoint_path=a b%c\n"
    )
    launch(hyper_parameter_config_dir="own.ini")
    given = run_lines(folder)["4"]["given"]
    assert given == {
        "distribute": "true", "optimizer.learning_rate": "1e-4", "save_checkpoint_path": "a b%c",
        "data_dir": str(folder / "wiki"), "device_id": "10", "device_num": "6"}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "further", "says"),
    [
        ({}, ["--device_id", "3"], "flags: device_id is not set there"),
        ({}, ["--no_such=3"], "flags: the training script has no flag --no_such"),
        ({"run_script_dir": "absent.py"}, [], "absent.py: training script not found"),
        ({"run_script_dir": "broken.py"}, [], "broken.py --help` fails with exit code 1"),
        ({"hccl_config_dir": "absent.json"}, [], "absent.json: file not found"),
        (
            {"hccn_config_file": "other.conf"},
            [],
            "hccl.json: no server of it ('10.0.0.1', '10.0.0.12') is this machine",
        ),
        ({"hyper_parameter_config_dir": "absent.ini"}, [], "absent.ini: file not found"),
    ],
)
def test_what_cannot_be_started_is_named(folder, changed, further, says):
    (folder / "broken.py").write_text("import no_such_module\n")
    (folder / "other.conf").write_text(hccn_lines(13, 8))
    with pytest.raises(UserError) as error:
        launch(*further, **changed)
    assert says in str(error.value)
    assert not list(folder.glob("LOG*")) and not (folder / "distributed_cmd.sh").exists()


def test_lines_are_read_back(tmp_path):
    commands = [
        Command(("taskset", "-c", "0-3", "/a b/python", "-m", "x.y", "--name=it's", "$HOME", "a;b", ">>", "汉字"),
                Path("/logs of/rank 0.txt"), {"RANK_ID": "0", "PLACE": "x y=z"}),
        Command(("python",), Path("log")),
    ]  # fmt: skip
    (tmp_path / "lines.sh").write_text(to_text(commands, "a title"))
    assert read_commands(tmp_path / "lines.sh") == commands
    assert [command.name for command in commands] == ["rank 0", "python"]
    assert Command(("/bin/python3", "-m", "models.bert.run_pretrain"), Path("log")).name == "models.bert.run_pretrain"
    # bash understands the same of a line.
    shown = (sys.executable, "-c", "import os, sys; print(sys.argv[1:], os.environ['PLACE'])", *commands[0].words[6:])
    command = Command(shown, tmp_path / "a log", commands[0].environment)
    subprocess.run(["bash", "-c", f"{to_line(command)} wait"], check=True)
    assert (tmp_path / "a log").read_text() == f"{list(commands[0].words[6:])} x y=z\n"


@pytest.mark.parametrize("line", ["python train.py", "A=1 >> log 2>&1 &", "python 'x >> log 2>&1 &", "rm -rf LOG0 &"])
def test_other_lines_are_refused(tmp_path, line):
    (tmp_path / "lines.sh").write_text(f"# title\n\n{line}\n")
    with pytest.raises(UserError, match=r"lines.sh, line 3: expected NAME=value"):
        read_commands(tmp_path / "lines.sh")
    (tmp_path / "lines.sh").write_text("# title\n")
    with pytest.raises(UserError, match="no command in it"):
        read_commands(tmp_path / "lines.sh")
