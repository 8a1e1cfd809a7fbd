"""Flags from YAML files: the same as on the command line, and nothing else is taken."""

import contextlib
import time

import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparsegpt_cli.app import app
from sparsegpt_cli.framework import ClickException, Session, flags_of
from sparsegpt_cli.framework.yaml_tree import Node, read_tree
from sparsegpt_core.errors import InputError
from tests.support.paths import ROOT

GROUP = typer.main.get_command(app)
COMMANDS = GROUP.commands
SAMPLES = ("true", "3", "0.5", "some text")


def parse(name, *arguments):
    """What a command gets from these arguments."""
    session = Session()
    with (
        typer.Context(GROUP) as root,
        COMMANDS[name].make_context(name, [str(each) for each in arguments], parent=root, obj=session) as context,
    ):
        return {key: value for key, value in context.params.items() if key not in ("config", "config_file")}


def sample(flag):
    """A value that a flag takes."""
    with typer.Context(GROUP) as context:
        for text in SAMPLES:
            try:
                flag.process_value(context, [text] if getattr(flag, "multiple", False) else text)
            except ClickException:
                continue
            return text
    raise AssertionError(f"no sample fits {flag.name}")


def on_command_line(flag, text):
    if flag.param_type_name == "argument":
        return [text]
    if flag.is_flag:
        return [flag.opts[0]] if text == "true" else flag.secondary_opts[:1]
    return [flag.opts[0], text]


def written(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_flags_of_commands_and_keys_of_files_are_the_same(name, tmp_path):
    command = COMMANDS[name]
    flags = flags_of(command)
    assert {flag.name for flag in flags.values()} == {flag.name for flag in command.params} - {"config", "config_file"}
    required = {key: flag for key, flag in flags.items() if flag.required}
    for key, flag in flags.items():
        texts = ["true", "false"] if getattr(flag, "is_flag", False) else [sample(flag)]
        for text in texts:
            given = {each: sample(needed) for each, needed in required.items()} | {key: text}
            arguments = [part for each, value in given.items() for part in on_command_line(flags[each], value)]
            at_top = [] if given.keys() & COMMANDS else [given]
            for content in ({name: given}, *at_top):
                path = written(tmp_path, yaml.safe_dump(content, sort_keys=False))
                assert parse(name, "--config", path) == parse(name, *arguments), key


def test_only_a_section_can_hold_a_flag_that_is_named_like_a_command():
    assert {key for command in COMMANDS.values() for key in flags_of(command)} & COMMANDS.keys() == {"run"}  # of report


def test_the_command_line_wins_over_the_section_and_the_section_over_the_top(tmp_path):
    path = written(tmp_path, "samples: 1\npattern: 1:4\nseed: 7\nprune:\n  samples: 2\n  seed: null\n  out: x")
    assert parse("prune", "--config", path)["samples"] == 2
    assert parse("prune", "--config", path)["pattern"] == "1:4"
    assert parse("prune", "--config", path)["seed"] == 0
    assert parse("prune", "--config", path, "--samples", 3)["samples"] == 3
    assert parse("prune-export", "--config", path, "--out", "y")["samples"] == 1


def test_values_are_text_until_the_flag_converts_them(tmp_path):
    """What YAML takes for numbers to base 60, words, dates, octal numbers or truth."""
    path = written(tmp_path, "pattern: 2:4\ndamping: 1e-3\nmodel: no\nsamples: 0o10\nexclude: 2026-11-23\nout: 010")
    with pytest.raises(InputError, match="samples cannot be '0o10'"):
        parse("prune", "--config", path)
    path.write_text(path.read_text().replace("0o10", "10"))
    values = parse("prune", "--config", path)
    assert (values["pattern"], values["damping"], values["model"]) == ("2:4", 0.001, "no")
    assert ([*values["exclude"]], str(values["out"])) == (["2026-11-23"], "010")


def test_lists_are_flags_that_are_repeated(tmp_path):
    path = written(tmp_path, "out: x\ninclude: [conv*, 'a b']\nexclude: fc\n")
    values = parse("prune", "--config", path)
    assert ([*values["include"]], [*values["exclude"]]) == (["conv*", "a b"], ["fc"])
    assert [*parse("prune", "--config", path, "--include", "z")["include"]] == ["z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only this", "the file is empty"),
        ("text", "not a mapping of keys to values"),
        ("- a\n- b", "not a mapping of keys to values"),
        ("a: b: c", "line 1: mapping values are not allowed"),
        ("a: [b", "line 1: "),
        ("\tseed: 1", "line 1: "),
        ("seed: 1\n---\nseed: 2", "line 3: a second document starts here"),
        ("seed: 1\nseed: 2", "line 2: 'seed' is here again; it is first in line 1"),
        ("prune: {out: x}\ntrain: {}\nprune: {}", "line 3: 'prune' is here again"),
        ("a: &a [x]\nb: *a", "line 1: anchors and aliases"),
        ("a: &a [x]", "anchors and aliases"),
        ("<<: {seed: 1}", "no command has '<<'"),
        ("seed: !!int 1", "tags are not allowed"),
        ("seed: !!python/object/apply:os.system [x]", "tags are not allowed"),
        ("? [a, b]\n: c", "a key is not text"),
        ("? {a: b}\n: c", "a key is not text"),
        ("null: 1", "a key is not text"),
        ("prune: {include: [[x]]}", "nested too deep"),
        ("prune: {include: {a: {b: c}}}", "nested too deep"),
        ('data: "a\\0b"', "control characters"),
        ('data: "\\ud800"', "control characters"),
        ('data: "\\U00110000"', "is not a YAML file"),
        ('data: "\\x1b[2J"', "control characters"),
        ("data: |\n  a\n  b", "control characters"),
        ("smaples: 1", "line 1: no command has 'smaples'. Did you mean samples?"),
        ("eval_data: digits", "Did you mean eval-data?"),
        ("prune_export:\n  samples: 1", "Did you mean prune-export?"),
        ("config: x.yaml", "no command has 'config'"),
        ("prune:\n  out: x\n  epochs: 1", "line 3: prune has no 'epochs'"),
        ("prune:\n  no-refit: true", "Write refit: false."),
        ("predict:\n  estimate: true", "Write measure: false."),
        ("prune: true", "line 1: prune is a command"),
        ("samples: many", "line 1: samples cannot be 'many'"),
        ("samples: 0", "line 1: samples cannot be '0'"),
        ("samples: [1, 2]", "line 1: samples cannot be a list"),
        ("samples: {a: b}", "line 1: samples cannot be a section"),
        ("include: [a, ~]", "line 1: include cannot be null"),
        ("train:\n  epochs: 1.5", "line 2: epochs cannot be '1.5'"),  # of another command than the one that is started
        ("prune:\n  refit: maybe", "line 2: refit cannot be 'maybe'"),
        ("benchmark:\n  engine-batch: 1\n  batch: 2", "line 3: batch is another name of engine-batch"),
        ("weights: $OUT/x.safetensors", "weights is in $OUT, the folder of run. Give --weights on the command line."),
    ],
)
def test_an_error_in_a_file_is_one_line(cli, tmp_path, text, message):
    path = written(tmp_path, text)
    outcome = cli("prune", "--config", path, "--out", tmp_path / "x.safetensors")
    assert outcome.code == 1, outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert outcome.err.startswith(f"error: {path}")
    assert message in outcome.err


def test_a_flag_replaces_a_path_in_the_folder_of_run(tmp_path):
    path = written(tmp_path, "weights: $OUT/x.safetensors")
    assert str(parse("prune", "--config", path, "--out", "x", "--weights", "y")["weights"]) == "y"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: \xff\xfe", "is not UTF-8 text"),
        ("data: digits".encode("utf-16"), "is not UTF-8 text"),
        (b"#" * (1 << 20), "is larger than 64 KiB"),
        (b"data: \x00", "is not a YAML file"),
        (None, "No such file or directory"),
    ],
)
def test_files_that_cannot_be_read(cli, tmp_path, content, message):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    outcome = cli("doctor", "--config", path)
    assert outcome.code == 1
    assert len(outcome.err.strip().splitlines()) == 1
    assert message in outcome.err


def test_folders_loops_and_endless_files(cli, tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path in (tmp_path, loop, "/dev/zero"):
        outcome = cli("doctor", "--config", path)
        assert outcome.code == 1
        assert len(outcome.err.strip().splitlines()) == 1


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert parse("doctor", "--config", path)["seed"] == 3


def test_errors_are_json_where_the_file_asks_for_it(cli, tmp_path):
    path = written(tmp_path, "json: true")
    assert "missing.onnx" in cli("verify", tmp_path / "missing.onnx", "--config", path).json["error"]


def test_two_configurations_are_one_too_many(cli, tmp_path):
    path = written(tmp_path, "seed: 1")
    outcome = cli("run", path, "--config", path)
    assert (outcome.code, "two configurations" in outcome.err) == (1, True)


def test_a_flag_that_is_still_missing_is_usage(cli, tmp_path):
    path = written(tmp_path, "benchmark:\n  dense: a.onnx")
    outcome = cli("benchmark", "--config", path)
    assert (outcome.code, "sparse" in outcome.err.lower()) == (2, True)
    assert cli("run").code == 2


@pytest.mark.parametrize(
    "piece", ["k%d: v\n", "- b\n", "[", "? ", "a: !x\n", "a:\n", "#\n", '"\n ', "---\n", "%FOO x\n"]
)
def test_the_largest_files_are_read_or_refused_soon(tmp_path, piece):
    count = 64 * 1024 // len(piece) - 1
    text = "a:\n" + "".join(piece.replace("%d", str(number)) for number in range(count))
    path = written(tmp_path, text[: 64 * 1024])
    start = time.process_time()
    with contextlib.suppress(InputError):
        read_tree(path)
    assert time.process_time() - start < 5


@given(
    st.one_of(st.binary(max_size=60), st.text(alphabet="ab:-[]{}#&*!|>'\"%@`?, \n\t\\~0", max_size=60).map(str.encode))
)
def test_any_bytes_give_a_tree_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        found = [isinstance(node, Node) for node in read_tree(path).values()]
    except InputError as error:
        found = ["\n" not in str(error)]
    assert all(found)


TEXT = st.text(st.characters(categories=("L", "N", "P", "S"), include_characters=" "), min_size=1, max_size=8).filter(
    str.isprintable
)
VALUES = st.one_of(TEXT, st.lists(TEXT, max_size=3))


@given(st.dictionaries(TEXT, st.one_of(VALUES, st.dictionaries(TEXT, VALUES, max_size=3)), min_size=1, max_size=4))
def test_a_file_that_pyyaml_writes_is_read_back(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "content.yaml"
    path.write_text(yaml.safe_dump(content, default_style='"', allow_unicode=True), encoding="utf-8")

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(node.value) for key, node in value.items()}
        return [plain(node.value) for node in value] if isinstance(value, list) else value

    assert plain(read_tree(path)) == content


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("sweep*.yaml")), ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_it_give_all_that_a_sweep_needs(path):
    assert parse("sweep", path, "--out", "x")["weights"]
