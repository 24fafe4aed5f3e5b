"""Settings from YAML and flags: which one wins, and what a person is told about a wrong one."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from sat_xception.errors import ConfigError
from sat_xception.evaluate.settings import GateConfig
from sat_xception.model.settings import TrainConfig
from sat_xception.settings.config import POSITIONAL, StepConfig, load_config, setting_of
from sat_xception.steps import (
    BULK_PIPELINE_VERBS,
    BULK_VERBS,
    DATASET_VERBS,
    MODELS_VERBS,
    PIPELINE_VERBS,
    SCHEDULE_VERBS,
    STEPS,
)
from sat_xception.workflows.settings import TrainFoldersConfig


class Settings(StepConfig):
    """A step's settings, one of each kind."""

    out: Path = Field(description="Where to.")
    inputs: tuple[Path, ...] = Field((), description="What.", json_schema_extra=POSITIONAL)
    learning_rate: float = Field(0.5, gt=0, description="How fast.")
    kind: Literal["a", "b"] = Field("a", description="Which.")
    shares: tuple[float, float] = Field((0.5, 0.5), description="How much.")
    first: int = Field(0, description="Before the last.")
    last: Annotated[int, Field(ge=0)] = Field(9, description="After the first.")

    @model_validator(mode="after")
    def _is_in_order(self) -> "Settings":
        if self.first > self.last:
            raise ValueError(f"first is {self.first}, after the last, {self.last}")
        return self


class Positional(StepConfig):
    """A step that needs what it works on."""

    inputs: tuple[Path, ...] = Field(min_length=1, description="What.", json_schema_extra=POSITIONAL)


@pytest.fixture
def yaml_file(tmp_path):
    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "settings.yaml"
        path.write_bytes(text.encode(encoding))
        return path

    return write


ALL_STEPS = {
    f"{group} {verb}".strip(): step.config
    for group, verbs in {
        "": STEPS,
        "dataset": DATASET_VERBS,
        "bulk": BULK_VERBS | BULK_PIPELINE_VERBS,
        "models": MODELS_VERBS,
        "pipeline": PIPELINE_VERBS,
        "schedule": SCHEDULE_VERBS,
    }.items()
    for verb, step in verbs.items()
}


@pytest.mark.parametrize("verb", ALL_STEPS)
def test_an_empty_path_is_one_that_is_not_given_in_every_verb(verb):
    optional = {
        name: Annotated[field.annotation, *field.metadata, None]
        for name, field in ALL_STEPS[verb].model_fields.items()
        if Path in get_args(field.annotation) and type(None) in get_args(field.annotation)
    }
    taken = {name: TypeAdapter(annotation).validate_python("") for name, annotation in optional.items()}
    assert taken == dict.fromkeys(optional)


def refusal(file: Path | None = None, model: type[StepConfig] = Settings, **flags: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(model, file, flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_flags_override_the_file_which_overrides_the_defaults(yaml_file):
    config = load_config(Settings, yaml_file("out: from-file\nlearning_rate: 0.1\n"), {"learning_rate": 0.2})
    assert (config.out, config.learning_rate, config.last) == (Path("from-file"), 0.2, 9)


def test_a_flag_that_was_not_given_overrides_nothing(yaml_file):
    assert load_config(Settings, yaml_file("out: o\nlast: 7\n"), {"last": None}).last == 7


def test_a_falsy_flag_overrides(yaml_file):
    assert load_config(Settings, yaml_file("out: o\nlast: 7\n"), {"last": 0}).last == 0


def test_a_wrong_value_in_the_file_that_a_flag_overrides_does_no_harm(yaml_file):
    assert load_config(Settings, yaml_file("out: o\nlast: never\n"), {"last": 1}).last == 1


def test_keys_of_the_file_may_be_written_with_dashes(yaml_file):
    assert load_config(Settings, yaml_file("out: o\nlearning-rate: 0.25\n")).learning_rate == 0.25


def test_sequences_of_the_file_become_tuples(yaml_file):
    config = load_config(Settings, yaml_file("out: o\nshares: [0.25, 0.75]\ninputs: [a, b/c]\n"))
    assert config.shares == (0.25, 0.75)
    assert config.inputs == (Path("a"), Path("b/c"))


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n"])
def test_an_empty_file_sets_nothing(yaml_file, text):
    assert load_config(Settings, yaml_file(text), {"out": "o"}) == load_config(Settings, None, {"out": "o"})


def test_an_unknown_key_of_the_file_is_an_error_that_names_the_file_and_the_nearest_key(yaml_file):
    file = yaml_file("out: o\nlerning-rate: 1\n")
    assert refusal(file) == f"unknown setting 'lerning_rate' in {file}; did you mean 'learning_rate'?"


def test_an_unknown_flag_is_blamed_on_the_command_line_though_there_is_a_file(yaml_file):
    message = refusal(yaml_file("out: o\n"), lasst=1)
    assert message == "unknown setting 'lasst' in the command line; did you mean 'last'?"


def test_an_unknown_key_like_none_other_lists_the_known_ones(yaml_file):
    message = refusal(yaml_file("zzzz: 1\n"))
    assert message.endswith("known keys: first, inputs, kind, last, learning_rate, out, shares")


def test_an_unknown_key_that_is_no_text_is_named(yaml_file):
    assert "unknown setting '1'" in refusal(yaml_file("1: 2\n"))


def test_a_missing_value_is_named_as_flag_and_as_key():
    message = refusal()
    assert message == "wrong settings from the command line: --out is required (or 'out' in the file given as --config)"


def test_a_missing_value_without_a_flag_is_named_as_the_help_names_it():
    assert ": INPUTS is required" in refusal(model=Positional)


def test_a_wrong_type_is_named_with_its_value_and_both_places(yaml_file):
    file = yaml_file("out: o\nlearning-rate: fast\n")
    message = refusal(file)
    assert message.startswith(f"wrong settings from {file} and the command line: --learning-rate: ")
    assert message.endswith("got 'fast'")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"learning_rate": 0}, "--learning-rate: Input should be greater than 0; got 0"),
        ({"learning_rate": float("nan")}, "--learning-rate: Input should be a finite number; got nan"),
        ({"kind": "c"}, "--kind: Input should be 'a' or 'b'; got 'c'"),
        ({"shares": (0.5, "much")}, "--shares: Input should be a valid number"),
        ({"shares": (1.0,)}, "--shares: Field required; got (1.0,)"),
        ({"inputs": "ab"}, "INPUTS: Input should be a valid tuple; got 'ab'"),
        ({"last": 1.5}, "--last: Input should be a valid integer"),
        ({"first": 3, "last": 2}, "wrong settings from the command line: first is 3, after the last, 2"),
    ],
)
def test_a_value_out_of_range_is_explained(flags, told):
    assert told in refusal(out="o", **flags)


def test_all_wrong_values_are_told_at_once():
    message = refusal(learning_rate=-1, kind="c")
    assert "--out is required" in message
    assert "--learning-rate" in message
    assert "--kind" in message


@pytest.mark.parametrize(("text", "kind"), [("- a\n- b\n", "list"), ("just words\n", "str"), ("3\n", "int")])
def test_a_file_that_is_no_mapping_is_refused(yaml_file, text, kind):
    file = yaml_file(text)
    assert refusal(file) == f"{file} must hold a mapping of settings, found a {kind}"


@pytest.mark.parametrize(
    "text", ["out: [o\n", "out: o\n\tlast: 1\n", "out: !!python/object:os.system {}\n", "out: \0\n"]
)
def test_a_file_that_is_no_plain_yaml_is_refused(yaml_file, text):
    file = yaml_file(text)
    assert refusal(file).startswith(f"{file} is not valid YAML: ")


def test_a_file_that_cannot_be_read_is_refused(tmp_path, yaml_file):
    for file in (tmp_path / "missing.yaml", tmp_path, yaml_file("out: caf\u00e9\n", "latin-1")):
        assert refusal(file).startswith(f"can't read the configuration {file}: ")


def test_settings_cannot_be_changed():
    config = load_config(Settings, None, {"out": "o"})
    with pytest.raises(ValidationError, match="frozen"):
        config.last = 3


def test_resolved_settings_are_json_and_complete():
    resolved = load_config(Settings, None, {"out": "o", "inputs": ["a"]}).resolved()
    assert resolved == {
        "out": "o",
        "inputs": ["a"],
        "learning_rate": 0.5,
        "kind": "a",
        "shares": [0.5, 0.5],
        "first": 0,
        "last": 9,
    }


def test_a_shared_setting_keeps_its_default_its_limits_and_its_description():
    ours, theirs = TrainFoldersConfig.model_fields["alpha"], TrainConfig.model_fields["alpha"]
    assert setting_of(TrainConfig, "alpha") is theirs
    assert (ours.default, ours.description) == (theirs.default, theirs.description)
    assert "--alpha: Input should be greater than 0" in refusal(model=TrainFoldersConfig, train="t", valid="v", alpha=0)


@pytest.mark.parametrize("verb", STEPS)
def test_every_setting_of_every_step_is_described(verb):
    for name, field in STEPS[verb].config.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", float("inf")])
@pytest.mark.parametrize(
    ("step", "setting", "flag"),
    [(TrainConfig, "head_learning_rate", "--head-learning-rate"), (GateConfig, "min_gain", "--min-gain")],
)
def test_a_setting_that_is_no_finite_number_is_refused(step, setting, flag, value):
    paths = {"examples": "e", "out": "o"} if step is TrainConfig else {"evaluations": ["e"], "out": "o"}
    with pytest.raises(ConfigError, match=f"{flag}: "):
        load_config(step, None, {**paths, setting: value})
