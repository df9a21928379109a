"""Layers, types, unknown keys, flags and recipes of the configuration."""

import argparse
import dataclasses

import pytest
import yaml

from models.bert import config as bert
from models.common.config import (
    add_flags,
    given_flags,
    leaves,
    load_recipe,
    load_yaml,
    option,
    resolve,
    section,
    to_yaml,
)
from models.common.errors import UserError
from models.common.finetune.classification import ClassificationConfig
from models.common.finetune.span import SpanConfig
from models.common.finetune.tagging import TaggingConfig
from models.common.pretrain.settings import PretrainConfig
from models.ernie import config as ernie

COMMANDS = {
    "run_squad": SpanConfig, "run_mrc": SpanConfig, "run_classifier": ClassificationConfig, "run_ner": TaggingConfig,
    "run_pretrain": PretrainConfig,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = option(0.5, "a rate")
    kind: str = option("a", "a kind", choices=("a", "b"))


@dataclasses.dataclass(frozen=True)
class Outer:
    steps: int = option(3, "how many")
    fast: bool = option(False, "faster")
    name: str | None = option(None, "a name")
    inner: Inner = section(Inner)


def test_later_layers_win_and_the_rest_stays():
    config = resolve(Outer, [("recipe", {"steps": 5, "inner": {"rate": 1}}), ("flags", {"inner.rate": "0.25"})])
    assert config == Outer(steps=5, inner=Inner(rate=0.25))
    assert isinstance(config.inner.rate, float)


def test_all_problems_are_listed_at_once():
    layers = [
        ("file.yaml", {"stesp": 5, "fast": "maybe", "inner": {"kind": "c", "speed": 1}}),
        ("flags", {"steps": "1.5", "inner.rate": "x"}),
    ]
    with pytest.raises(UserError) as error:
        resolve(Outer, layers)
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == 6
    for expected in (
        "file.yaml: unknown key 'stesp'",
        "file.yaml: fast must be true or false, got 'maybe'",
        "file.yaml: inner.kind must be one of a, b; got 'c'",
        "file.yaml: unknown key 'inner.speed'",
        "flags: steps must be int, got '1.5'",
        "flags: inner.rate must be float, got 'x'",
    ):
        assert f"  {expected}" in lines


@pytest.mark.parametrize(("text", "value"), [("True", True), ("false", False), ("FALSE", False)])
def test_booleans_are_spelled_as_in_the_originals(text, value):
    assert resolve(Outer, [("flags", {"fast": text})]).fast is value


def test_a_boolean_is_no_number_and_a_number_no_boolean():
    for layer in ({"steps": True}, {"fast": 1}):
        with pytest.raises(UserError):
            resolve(Outer, [("file", layer)])


def test_yaml_written_is_read_back_equal():
    config = Outer(steps=9, fast=True, name="x", inner=Inner(1e-9, "b"))
    assert resolve(Outer, [("yaml", yaml.safe_load(to_yaml(config)))]) == config


def test_every_setting_is_a_flag_and_only_given_ones_count():
    parser = argparse.ArgumentParser()
    add_flags(parser, Outer)
    arguments = parser.parse_args(["--inner.kind", "b", "--fast", "true"])
    assert given_flags(arguments, Outer) == {"inner.kind": "b", "fast": "true"}
    for name, field in leaves(Outer):
        assert f"--{name}" in parser.format_help()
        assert field.metadata["help"] in parser.format_help()


def test_damaged_yaml_names_file_and_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("steps: 1\nfast: [\n")
    with pytest.raises(UserError, match=r"bad\.yaml, line \d"):
        load_yaml(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(UserError, match="expected settings"):
        load_yaml(path)


@pytest.mark.parametrize("family", [bert, ernie], ids=lambda family: family.NETWORKS.model)
def test_every_recipe_resolves_and_says_where_it_comes_from(family):
    recipes = load_yaml(family.RECIPES)
    assert recipes
    for name, recipe in recipes.items():
        command = recipe["about"]["command"]
        resolve(COMMANDS[command], [(name, load_recipe(family.RECIPES, name, command))])
        assert {"source", "expected"} <= set(recipe["about"]), name


def test_an_unknown_recipe_lists_the_known():
    with pytest.raises(UserError, match=r"no recipe 'nope'; it has: .*squad_base"):
        load_recipe(bert.RECIPES, "nope", "run_squad")
    with pytest.raises(UserError, match=r"'cola' is no recipe of run_squad; it has: .*squad_base"):
        load_recipe(bert.RECIPES, "cola", "run_squad")
