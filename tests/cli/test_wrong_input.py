"""Whatever a user can get wrong ends in one line that says what and what to do, and in the right exit code."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from cadcpp.cli import main
from cadcpp.models.demo import DemoPair
from tests.support import tinygguf
from tests.support.command import COMMAND, ROOT, run

WRONG_ARGUMENT, WRONG_FILE, INTERRUPTED = 2, 1, 130


def check(code: int, out: str, err: str, wanted: int, *words: str) -> None:
    """Nothing on stdout, one line on stderr that holds all of ``words``, and the wanted exit code."""
    lines = err.splitlines()
    assert out == "" and len(lines) == 1 and lines[0].startswith("cadcpp: "), f"{out!r}\n{err}"
    assert code == wanted, err
    for word in words:
        assert word in lines[0]


# Arguments: refused before anything is loaded, so no model is needed. --------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["-n", "0"], ["-n", "0"], id="n 0"),
        pytest.param(["-n", "-5"], ["-n", "-5"], id="n negative"),
        pytest.param(["-n", "many"], ["-n", "many", "--help"], id="n no number"),
        pytest.param(["--ctx", "0"], ["ctx", "0"], id="ctx 0"),
        pytest.param(["--ctx", "-1"], ["ctx", "-1"], id="ctx negative"),
        pytest.param(["--temp", "-1"], ["temperature", "-1"], id="temp negative"),
        pytest.param(["--temp", "nan"], ["temperature", "nan"], id="temp nan"),
        pytest.param(["--temp", "inf"], ["temperature", "inf"], id="temp inf"),
        pytest.param(["--top-k", "-1"], ["top-k", "-1"], id="top-k negative"),
        pytest.param(["--top-k", "9" * 30], ["top-k", "999"], id="top-k huge"),
        pytest.param(["--top-p", "0"], ["top-p", "0"], id="top-p 0"),
        pytest.param(["--top-p", "2"], ["top-p", "2"], id="top-p 2"),
        pytest.param(["--min-p", "-1"], ["min-p", "-1"], id="min-p negative"),
        pytest.param(["--repeat-penalty", "0"], ["repeat-penalty", "0"], id="repeat-penalty 0"),
        pytest.param(["--repeat-penalty", "nan"], ["repeat-penalty", "nan"], id="repeat-penalty nan"),
        pytest.param(["--seed", "-1"], ["seed", "-1"], id="seed negative"),
        pytest.param(["--seed", "99999999999"], ["seed", "99999999999"], id="seed huge"),
        pytest.param(["--threads", "0"], ["threads", "0"], id="threads 0"),
        pytest.param(["--threads", "100000"], ["threads", "100000"], id="threads huge"),
        pytest.param(["--max-tree-size", "0", "-d", "none.gguf"], ["max-tree-size", "0"], id="tree 0"),
        pytest.param(["--max-tree-size", "300", "-d", "none.gguf"], ["max-tree-size", "300"], id="tree 300"),
        pytest.param(["--max-tree-size", "300"], ["max-tree-size", "300"], id="tree without a draft"),
        pytest.param(["--speculative", "draft"], ["-d"], id="no draft"),
        pytest.param(["--speculative", "staged"], ["staged", "-d"], id="no draft to stage"),
        pytest.param(
            ["--speculative", "draft", "-d", "none.gguf", "--ngram", "x.katz"], ["draft", "x.katz"], id="unused ngram"
        ),
        pytest.param(["--speculative", "off", "--ngram", "x.katz"], ["off", "x.katz"], id="ngram and off"),
        pytest.param(["--speculative", "maybe"], ["maybe", "auto"], id="no such mode"),
        pytest.param(["--ram", "0"], ["ram", "0"], id="ram 0"),
        pytest.param(["--ram", "-1GB"], ["-1GB", "900MiB"], id="ram negative"),
        pytest.param(["--ram", "much"], ["much", "900MiB"], id="ram no size"),
        pytest.param(["--nonsense"], ["--nonsense", "--help"], id="no such option"),
        pytest.param(["more"], ["more"], id="too many arguments"),
    ],
)
@pytest.mark.parametrize("name", ["generate", "chat"])
def test_an_argument_that_cannot_work(name: str, arguments: Sequence[str], words: Sequence[str]) -> None:
    given = [name, "-m", "none.gguf", *(["-p", "Hi"] if name == "generate" else []), *arguments]
    result = CliRunner().invoke(main, given)
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--ctx", "0"], ["ctx", "0"], id="ctx 0"),
        pytest.param(["--ram", "much"], ["much", "900MiB"], id="ram no size"),
        pytest.param(["--max-tree-size", "300"], ["max-tree-size", "300"], id="tree"),
    ],
)
def test_a_plan_that_cannot_work(arguments: Sequence[str], words: Sequence[str]) -> None:
    result = CliRunner().invoke(main, ["plan", "-m", "none.gguf", *arguments])
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["generate", "-p", "Hi"], ["--model"], id="no model"),
        pytest.param(["chat"], ["--model"], id="no model to chat with"),
        pytest.param(["write"], ["write"], id="no such command"),
        pytest.param(["--nonsense"], ["--nonsense"], id="no such option"),
    ],
)
def test_a_command_line_that_cannot_work(arguments: Sequence[str], words: Sequence[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, *words, "--help")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["--port", "99999"], ["--port", "99999"], id="port"),
        pytest.param(["--api-key", " "], ["--api-key", "empty"], id="empty key"),
        pytest.param(["--ctx", "0"], ["ctx", "0"], id="ctx 0"),
        pytest.param(["--ram", "much"], ["much", "900MiB"], id="ram no size"),
        pytest.param(["--max-tree-size", "300"], ["max-tree-size", "300"], id="tree"),
        pytest.param(["--cors", "https://a.example"], ["--cors", "CADCPP_API_KEY"], id="pages without a key"),
        pytest.param(["--api-key", "k", "--cors", "a"], ["--cors", "'a'"], id="no origin"),
    ],
)
def test_a_server_that_cannot_work(arguments: Sequence[str], words: Sequence[str]) -> None:
    result = CliRunner().invoke(main, ["serve", "-m", "none.gguf", *arguments])
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, *words)


# Prompts. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        pytest.param(["-p", ""], "", id="empty"),
        pytest.param(["-p", " \n\t"], "", id="blank"),
        pytest.param([], "", id="empty stdin"),
        pytest.param([], "\n \n", id="blank stdin"),
    ],
)
def test_no_prompt(arguments: Sequence[str], stdin: str) -> None:
    result = CliRunner().invoke(main, ["generate", "-m", "none.gguf", *arguments], input=stdin)
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, "prompt is empty", "-p", "-f")


def test_a_closed_stdin_is_no_prompt() -> None:
    script = f"exec {COMMAND[0]} -m cadcpp generate -m none.gguf <&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, cwd=ROOT)
    check(done.returncode, done.stdout, done.stderr, WRONG_ARGUMENT, "prompt is empty")


def test_two_prompts(tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("Hi")
    result = CliRunner().invoke(main, ["generate", "-m", "none.gguf", "-p", "Hi", "-f", str(tmp_path / "prompt")])
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, "-p and -f")


def test_stdin_that_is_no_text() -> None:
    result = CliRunner().invoke(main, ["generate", "-m", "none.gguf"], input=b"caf\xe9")
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, "standard input", "UTF-8")


@pytest.mark.parametrize("kind", ["missing", "directory", "binary", "unreadable"])
def test_a_prompt_file_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    file = tmp_path / kind
    if kind == "directory":
        file.mkdir()
    elif kind != "missing":
        file.write_bytes(b"\x7fELF\xff\xfe\x00")
        file.chmod(0 if kind == "unreadable" else 0o600)
    if kind == "unreadable" and os.access(file, os.R_OK):
        pytest.skip("this user may read everything")
    result = CliRunner().invoke(main, ["generate", "-m", "none.gguf", "-f", str(file)])
    check(result.exit_code, result.stdout, result.stderr, WRONG_ARGUMENT, str(file))


# Model files: each in a process of its own, where an abort in native code would show. -----------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with usable and unusable model files, and some that only look like one."""
    d = tmp_path_factory.mktemp("models")
    good = tinygguf.tiny_llama(d / "good.gguf").read_bytes()
    tinygguf.tiny_llama(d / "draft.gguf", noise=0.02)
    tinygguf.tiny_llama(d / "other-text.gguf", other_vocab=True)
    tinygguf.tiny_llama(d / "other-size.gguf", n_vocab=400)
    tinygguf.tiny_llama(d / "short.gguf", noise=0.02, n_ctx_train=128)
    tinygguf.tiny_llama(d / "endless.gguf", n_ctx_train=2**31 - 1)
    tinygguf.tiny_llama(d / "narrow-heads.gguf", n_head=4)
    tinygguf.tiny_llama(d / "bad-template.gguf", chat_template="{{ raise_exception('no') }}")
    tinygguf.tiny_llama(d / "broken-template.gguf", chat_template="{% for")
    tinygguf.tiny_llama(d / "no-layers.gguf", n_layer=0)
    tinygguf.tiny_bert(d / "bert.gguf")
    tinygguf.tiny_t5(d / "t5.gguf")
    for kind in ("mmproj", "adapter"):
        _write_type(d / f"{kind}.gguf", kind)
    (d / "directory.gguf").mkdir()
    (d / "text.gguf").write_text("This is no model.\n")
    (d / "empty.gguf").touch()
    (d / "magic.gguf").write_bytes(good[:4])
    (d / "cut-header.gguf").write_bytes(good[:3000])
    (d / "cut-data.gguf").write_bytes(good[: len(good) // 2])
    return d


def _write_type(path: Path, kind: str) -> None:
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(kind)
    writer.add_tensor("v.position_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


UNUSABLE = [
    pytest.param("missing.gguf", ["no model file", "cadcpp models demo"], id="missing"),
    pytest.param("directory.gguf", ["directory"], id="directory"),
    pytest.param("text.gguf", ["not a GGUF model"], id="text"),
    pytest.param("empty.gguf", ["not a GGUF model"], id="empty"),
    pytest.param("magic.gguf", ["not a readable GGUF model"], id="magic only"),
    pytest.param("cut-header.gguf", ["not a readable GGUF model"], id="cut in the header"),
    pytest.param("cut-data.gguf", ["cut short"], id="cut in the data"),
    pytest.param("no-layers.gguf", ["0 layers", "damaged"], id="no layers"),
    pytest.param("bert.gguf", ["embedding model"], id="embedding"),
    pytest.param("mmproj.gguf", ["mmproj", "not a language model"], id="mmproj"),
    pytest.param("adapter.gguf", ["adapter", "not a language model"], id="adapter"),
    pytest.param("t5.gguf", ["t5"], id="encoder and decoder"),
    pytest.param("narrow-heads.gguf", ["32"], id="heads that a q8_0 cache cannot hold"),
]


@pytest.mark.parametrize(("name", "words"), UNUSABLE)
def test_a_verifier_that_cannot_work(models: Path, name: str, words: Sequence[str]) -> None:
    done = run("generate", "-m", models / name, "-p", "Hi", "-n", 4)
    check(done.returncode, done.stdout, done.stderr, WRONG_FILE, name, *words)


@pytest.mark.parametrize(("name", "words"), UNUSABLE)
def test_a_draft_that_cannot_work(models: Path, name: str, words: Sequence[str]) -> None:
    done = run("generate", "-m", models / "good.gguf", "-d", models / name, "-p", "Hi", "-n", 4)
    check(done.returncode, done.stdout, done.stderr, WRONG_FILE, name, *words)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("other-text.gguf", ["token 353", "different"], id="one text"),
        pytest.param("other-size.gguf", ["354", "400"], id="size"),
    ],
)
def test_a_draft_with_another_vocabulary(models: Path, name: str, words: Sequence[str]) -> None:
    done = run("generate", "-m", models / "good.gguf", "-d", models / name, "-p", "Hi", "-n", 4)
    check(done.returncode, done.stdout, done.stderr, WRONG_FILE, "vocabular", *words)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        pytest.param(
            "good.gguf", ["--ctx", 1_000_000_000], ["1000000000", "2048", "--ctx"], id="more than trained for"
        ),
        pytest.param("endless.gguf", ["--ctx", 1_000_000_000], ["--ctx"], id="more than fits into memory"),
        pytest.param("endless.gguf", ["--ctx", 2**31], ["--ctx"], id="more than llama.cpp can count"),
        pytest.param("good.gguf", ["--ctx", 10**40], ["--ctx"], id="more than anybody can count"),
    ],
)
def test_a_context_that_is_too_large(models: Path, name: str, options: Sequence[object], words: Sequence[str]) -> None:
    for draft in ([], ["-d", models / "draft.gguf"]):
        done = run("generate", "-m", models / name, *draft, "-p", "Hi", "-n", 4, *options)
        check(done.returncode, done.stdout, done.stderr, WRONG_ARGUMENT, *words)


@pytest.mark.parametrize("command", [["generate", "-p", "Hi"], ["chat"]], ids=["generate", "chat"])
def test_memory_that_is_too_little(models: Path, command: Sequence[object]) -> None:
    done = run(*command, "-m", models / "good.gguf", "-n", 4, "--ram", "1MiB")
    check(done.returncode, done.stdout, done.stderr, WRONG_ARGUMENT, "1 MiB", "--ram", "--ctx")


def test_a_draft_that_was_trained_on_shorter_texts_only_drafts_less(models: Path) -> None:
    options = ["-p", "Hi", "-n", 200, "--temp", 0]
    plain = run("generate", "-m", models / "good.gguf", *options)
    done = run("generate", "-m", models / "good.gguf", "-d", models / "short.gguf", *options)
    assert (done.returncode, done.stdout) == (0, plain.stdout)


def test_a_prompt_that_is_longer_than_the_context(models: Path) -> None:
    done = run("generate", "-m", models / "good.gguf", "-p", "word " * 100, "-n", 4, "--ctx", 64)
    check(done.returncode, done.stdout, done.stderr, WRONG_FILE, "64", "--ctx")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        pytest.param("good.gguf", WRONG_FILE, ["no chat template", "cadcpp generate"], id="none"),
        pytest.param("bad-template.gguf", WRONG_ARGUMENT, ["chat template", "no"], id="refuses"),
        pytest.param("broken-template.gguf", WRONG_FILE, ["chat template"], id="broken"),
    ],
)
def test_a_chat_template_that_cannot_work(models: Path, name: str, code: int, words: Sequence[str]) -> None:
    done = run("generate", "-m", models / name, "-p", "Hi", "-n", 4, "--chat")
    check(done.returncode, done.stdout, done.stderr, code, name, *words)


def test_a_chat_without_a_template(models: Path) -> None:
    done = run("chat", "-m", models / "good.gguf", stdin=b"Hi\n")
    check(done.returncode, done.stdout, done.stderr, WRONG_FILE, "good.gguf", "no chat template")


@pytest.mark.parametrize(
    ("name", "options", "code", "words"),
    [
        pytest.param("missing.gguf", ["--ctx", 64], WRONG_FILE, ["no model file"], id="missing"),
        pytest.param("bert.gguf", [], WRONG_FILE, ["embedding model"], id="embedding"),
        pytest.param("broken-template.gguf", [], WRONG_FILE, ["chat template"], id="broken template"),
        pytest.param("good.gguf", ["-d", "other-size.gguf"], WRONG_FILE, ["354", "400"], id="another vocabulary"),
        pytest.param("good.gguf", ["--ctx", 4096], WRONG_ARGUMENT, ["4096", "2048"], id="context"),
        pytest.param("good.gguf", ["--ram", "1MiB"], WRONG_ARGUMENT, ["1 MiB", "--ram"], id="memory"),
    ],
)
def test_models_that_cannot_be_served(
    models: Path, name: str, options: Sequence[object], code: int, words: Sequence[str]
) -> None:
    pytest.importorskip("starlette", reason="the extra `server` is not installed")
    options = [models / str(o) if str(o).endswith(".gguf") else o for o in options]
    done = run("serve", "-m", models / name, "--port", 0, *options)
    check(done.returncode, done.stdout, done.stderr, code, *words)


def test_a_port_that_is_in_use(models: Path) -> None:
    pytest.importorskip("starlette", reason="the extra `server` is not installed")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "-m", models / "good.gguf", "--port", port)
    check(done.returncode, done.stdout, done.stderr, WRONG_ARGUMENT, str(port), "--port")


def test_an_address_that_others_reach_needs_a_key(models: Path) -> None:
    pytest.importorskip("starlette", reason="the extra `server` is not installed")
    done = run("serve", "-m", models / "good.gguf", "--host", "0.0.0.0", "--port", 0)
    check(done.returncode, done.stdout, done.stderr, WRONG_ARGUMENT, "0.0.0.0", "CADCPP_API_KEY")


# The other end of a pipe, and the keyboard. -----------------------------------------------------------


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """A generation that would go on for long."""
    command = [*COMMAND, "generate", *map(str, arguments), "-p", "Hi", "-n", "1800", "--temp", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, bufsize=0)


@pytest.fixture(params=["plain", "draft"])
def pair(request: pytest.FixtureRequest, models: Path) -> list[object]:
    return ["-m", models / "good.gguf", *(["-d", models / "draft.gguf"] if request.param == "draft" else [])]


def test_a_reader_that_has_read_enough(pair: list[object]) -> None:
    process = start(*pair)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(60), err) == (1, b"")
    process.stderr.close()


@pytest.mark.real
@pytest.mark.parametrize("drafts", [False, True], ids=["plain", "draft"])
def test_ctrl_c_ends_a_generation_and_keeps_its_text(
    smollm2: Callable[[str], Path], demo: DemoPair, drafts: bool
) -> None:
    # A tiny model would be done before the signal comes.
    process = start("-m", smollm2("Q8_0"), *(["-d", demo.draft] if drafts else []), "--threads", 1)
    assert process.stdout is not None
    first = process.stdout.read(1)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert len(first + rest) > 1 and len(err.splitlines()) <= 1 and b"Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_behind_stdout(models: Path) -> None:
    with open("/dev/full", "wb") as full:
        command = [*COMMAND, "generate", "-m", str(models / "good.gguf"), "-p", "Hi", "-n", "4"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    check(done.returncode, "", done.stderr, WRONG_FILE, "standard output")
