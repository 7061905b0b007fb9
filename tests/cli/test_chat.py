"""The REPL: whole transcripts with a scripted session, stdout and stderr apart."""

import json
import os
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

import cadcpp.runtime.generation_record
from cadcpp.cli import main
from cadcpp.cli.chat import commands
from cadcpp.cli.chat.commands import COMMANDS, Command
from cadcpp.errors import ContextFull, NativeError
from tests.support.fakechat import FakeSession, Step, chunk, interrupt, replace_session, say

Chat = Callable[..., tuple[Result, FakeSession]]


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Every chunk takes half a second, and nothing is read."""
    ticks = count()
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) / 2, process_time=float)
    monkeypatch.setattr(cadcpp.runtime.generation_record, "time", clock)

    def run(lines: str | bytes, *replies: Iterable[Step], options: Sequence[str] = ()) -> tuple[Result, FakeSession]:
        session = FakeSession(replies)
        replace_session(session, monkeypatch.setattr)
        result = CliRunner().invoke(main, ["chat", "-m", "fake.gguf", *options], input=lines, catch_exceptions=False)
        return result, session

    return run


def foot(*texts: str) -> str:
    """The line under a reply that came in these pieces."""
    n, later = sum(map(len, texts)), sum(map(len, texts[1:]))
    speed = later / (len(texts) - 1) * 2 if later else n * 2
    return f"[{n} tokens, {speed:.2f}/s, {n / len(texts):.2f} a pass, 0 B read a token, 25% resident]\n"


def kept(state: Path) -> list[list[dict[str, object]]]:
    """The transcripts of all chats, the oldest first, without their headers."""
    files = sorted((state / "cadcpp" / "chats").iterdir())
    return [[json.loads(line) for line in file.read_text("utf-8").splitlines()[1:]] for file in files]


def test_answers_go_to_stdout_and_nothing_else_does(chat: Chat) -> None:
    result, session = chat("Hi\n\nHow are you?\n", say("Hel", "lo!"), say("Fine."))
    assert (result.exit_code, result.stdout) == (0, "Hello!\nFine.\n")
    assert result.stderr == foot("Hel", "lo!") + foot("Fine.")
    assert session.prompts == ["<u>Hi</><a>", "<u>Hi</><a>Hello!</><u>How are you?</><a>"]


def test_the_last_line_needs_no_end(chat: Chat) -> None:
    assert chat("Hi", say("Hello!"))[0].stdout == "Hello!\n"


def test_no_input_no_answer(chat: Chat, state: Path) -> None:
    result, _ = chat("")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert not state.exists()


def test_a_reply_ends_its_line_once(chat: Chat) -> None:
    assert chat("a\nb\nc\n", say("x\n"), say(""), say("y"))[0].stdout == "x\n\ny\n"


@pytest.mark.parametrize("line", ["/quit", "/bye", "/exit", "/q", "/QUIT now"])
def test_quit_leaves_at_once(chat: Chat, line: str) -> None:
    result, session = chat(f"{line}\nHi\n")
    assert (result.stdout, session.prompts) == ("", [])


def test_a_pipe_has_no_words_for_commands(chat: Chat) -> None:
    assert chat("quit\n", say("no"))[1].prompts == ["<u>quit</><a>"]


def test_commands_speak_on_stderr(chat: Chat) -> None:
    result, _ = chat("/stats\n/tree\n/nope more\n/undo\n/set heat 1\n/read\n/show me\n")
    assert result.stdout == ""
    assert result.stderr == (
        "no reply yet\n"
        "no reply yet\n"
        'cadcpp: no command /nope: /help lists them; a message that begins with / goes between """ and """\n'
        "cadcpp: there is no question yet: ask one\n"
        "cadcpp: no setting heat: there are n, temperature, top_k, top_p, min_p, repeat_penalty, repeat_last_n, seed, "
        "sampler\n"
        "cadcpp: no file is named: /read FILE\n"
        "cadcpp: nothing to show for me: there are draft, off, info, system and parameters\n"
    )


@pytest.mark.parametrize("line", ["/help", "/?", "/h"])
def test_help_lists_every_command(chat: Chat, line: str) -> None:
    result, _ = chat(f"{line}\n")
    names = "help reset regen edit undo system set read save load stats show tree quit".split()
    starts = [row.split()[0] for row in result.stderr.splitlines()]
    assert result.stdout == "" and set(starts) >= {f"/{name}" for name in names}


def test_stats_are_those_of_the_last_reply(chat: Chat) -> None:
    result, _ = chat("Hi\n/stats\n", say("Hel", "lo!"))
    figures = dict(line.split() for line in result.stderr.splitlines()[1:])
    assert (figures["completion_tokens"], figures["passes"], figures["finish_reason"]) == ("6", "2", "stop")


@pytest.mark.parametrize("line", ["/reset", "/clear"])
def test_reset_forgets_and_keeps_the_system_prompt(chat: Chat, state: Path, line: str) -> None:
    result, session = chat(f"Hi\n{line}\nBye\n", say("one"), say("two"), options=["--system", "Be brief."])
    assert (result.stdout, result.stderr) == ("one\ntwo\n", foot("one") + "forgotten\n" + foot("two"))
    assert session.prompts[1] == "<s>Be brief.</><u>Bye</><a>"
    assert [[entry["content"] for entry in one][1:] for one in kept(state)] == [["Hi", "one"], ["Bye", "two"]]


@pytest.mark.parametrize("line", ["/regen", "/regenerate", "/retry"])
def test_regen_draws_the_last_reply_anew(chat: Chat, state: Path, line: str) -> None:
    result, session = chat(f"a\nb\n{line}\nc\n", *map(say, ["one", "two", "three", "four"]), options=["--seed", "7"])
    assert result.stdout == "one\ntwo\nthree\nfour\n"
    assert session.prompts[1] == session.prompts[2] and session.seeds == [7, 7, 8, 8]
    assert session.prompts[3] == "<u>a</><a>one</><u>b</><a>three</><u>c</><a>"
    assert [entry["content"] for entry in kept(state)[0]] == ["a", "one", "b", "three", "c", "four"]


def test_regen_that_brings_nothing_leaves_all_as_it_was(chat: Chat) -> None:
    result, session = chat("a\n/regen\nb\n", say("one"), [NativeError("no luck")], say("two"))
    assert (result.stdout, result.stderr) == ("one\ntwo\n", foot("one") + "cadcpp: no luck\n" + foot("two"))
    assert session.prompts[2] == "<u>a</><a>one</><u>b</><a>"


@pytest.mark.parametrize("lines", ["/edit b\n", "/edit\nb\n"])
def test_edit_asks_again(chat: Chat, lines: str) -> None:
    _, session = chat(f"a\n{lines}", say("one"), say("two"))
    assert session.prompts == ["<u>a</><a>", "<u>b</><a>"]


def test_undo_takes_turns_back(chat: Chat, state: Path) -> None:
    result, session = chat("a\nb\n/undo\n/undo\n/undo\nc\n", say("one"), say("two"), say("three"))
    assert result.stderr.splitlines()[2:5] == [
        "taken back: b",
        "taken back: a",
        "cadcpp: there is no question yet: ask one",
    ]
    assert session.prompts[2] == "<u>c</><a>"
    assert [entry["content"] for entry in kept(state)[0]] == ["c", "three"]


def test_the_system_prompt_changes_and_the_conversation_stays(chat: Chat) -> None:
    lines = 'a\n/system Sing.\n/show system\nb\n/set system ""\nc\n'
    result, session = chat(lines, say("one"), say("two"), say("three"))
    assert result.stderr.count("system prompt: Sing.\n") == 2 and "system prompt: none\n" in result.stderr
    assert session.prompts[1:] == [
        "<s>Sing.</><u>a</><a>one</><u>b</><a>",
        "<u>a</><a>one</><u>b</><a>two</><u>c</><a>",
    ]


def test_settings_change_while_the_chat_runs(chat: Chat) -> None:
    lines = (
        "/set parameter seed 5\n/set temp 0.5\n/set num_predict 9\n/set temp -1\n/set top-k many\n/set n 0\n"
        "/set sampler llama\n/set sampler dice\n/set\nHi\n"
    )
    result, session = chat(lines, say("one"))
    assert session.seeds == [5]
    assert [line for line in result.stderr.splitlines() if line.startswith("cadcpp:")] == [
        "cadcpp: temperature must be 0 or more, got -1.0",
        "cadcpp: top-k takes a whole number, got 'many'",
        "cadcpp: n must be at least 1, got 0",
        "cadcpp: sampler must be coupled or llama, got dice",
    ]
    last = dict(line.split() for line in result.stderr.splitlines()[-10:-1])
    assert (last["seed"], last["temperature"], last["n"], last["sampler"]) == ("5", "0.5", "9", "llama")


def test_figures_under_replies_can_be_left_out(chat: Chat) -> None:
    result, _ = chat("/set quiet\na\n/set verbose\nb\n", say("one"), say("two"))
    assert result.stderr == f"figures under replies: off\nfigures under replies: on\n{foot('two')}"


def test_files_go_with_the_next_message(chat: Chat, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("naïve", "utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    lines = f"/read {tmp_path / 'a b.txt'}\n/read {tmp_path}/binary\n/read {tmp_path}/none\nWhat?\nAnd?\n"
    result, session = chat(lines, say("one"), say("two"))
    assert session.prompts[0] == "<u>naïve\n\nWhat?</><a>" and session.prompts[1].endswith("<u>And?</><a>")
    assert result.stderr.splitlines()[:3] == [
        "a b.txt: 5 letters go with the next message",
        f"cadcpp: {tmp_path}/binary is not UTF-8 text: convert it, or name another file",
        f"cadcpp: cannot read {tmp_path}/none: No such file or directory; check the path",
    ]


def test_a_chat_is_saved_and_loaded(chat: Chat, tmp_path: Path) -> None:
    file, other = tmp_path / "sea.jsonl", tmp_path / "notes.txt"
    other.write_text("mine\n")
    result, _ = chat(f"a\n/save {file}\n/save {other}\nb\n/save {file}\n", say("one"), say("two"))
    assert f"cadcpp: {other} is there and no transcript of a chat: name another file" in result.stderr
    assert other.read_text() == "mine\n"
    result, session = chat(f"x\n/load {file}\n/load {other}\nc\n", say("no"), say("three"))
    assert session.prompts[1] == "<u>a</><a>one</><u>b</><a>two</><u>c</><a>"
    assert result.stderr.splitlines()[1:3] == [
        f"goes on with {file}, 2 questions",
        f"cadcpp: {other} line 1 is not of a chat's transcript: name a file that /save wrote",
    ]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param('"""one\n/two\n\nthree"""\n', "one\n/two\n\nthree", id="quotes"),
        pytest.param('"""/one"""\n', "/one", id="quotes on one line"),
        pytest.param('"""one\ntwo', "one\ntwo", id="quotes that nobody closed"),
        pytest.param("!multi\none\ntwo\n!end\n", "one\ntwo", id="multi"),
        pytest.param("!multi x\none\n!end\n!end x\n", "one\n!end", id="multi with a mark"),
        pytest.param("one \\\ntwo\\\nthree\n", "one \ntwo\nthree", id="backslash"),
        pytest.param("one\\", "one", id="backslash at the end"),
    ],
)
def test_messages_of_several_lines(chat: Chat, lines: str, message: str) -> None:
    assert chat(lines, say("yes"))[1].prompts == [f"<u>{message}</><a>"]


def test_the_tree_of_the_last_round(chat: Chat) -> None:
    result, _ = chat("Hi\n/tree\n", say("hey", "you"))
    assert result.stderr == foot("hey", "you") + (
        "* '\\x00'  1.000\n*   'y'  0.905\n*     'o'  0.819\naccepted: 2 of 2, then the verifier's own: 'u'\n"
    )


def test_no_colours_in_a_pipe(chat: Chat) -> None:
    result, _ = chat("/show\nHi\n", say("hey"), options=["--show", "draft"])
    assert (result.stdout, result.stderr) == ("hey\n", "colours: off\n" + foot("hey"))
    result, _ = chat("Hi\n", say("\x1b[31mred"), options=["--show", "draft"])
    assert result.stdout == "\x1b[31mred\n"  # what the model wrote, to the letter


def test_ctrl_c_stops_the_reply_and_keeps_its_part(chat: Chat, state: Path) -> None:
    result, session = chat("Hi\nGo on\n", [*say("one", finish=None), interrupt, *say("two", "three")], say("four"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\nfour\n", foot("one") + foot("four"))
    assert session.prompts[1] == "<u>Hi</><a>one</><u>Go on</><a>"
    assert [entry.get("partial") for entry in kept(state)[0]] == [None, True, None, False]


def test_ctrl_c_twice_leaves(chat: Chat) -> None:
    def twice() -> Iterable[Step]:
        try:
            yield chunk("one")
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGINT)  # while the reply is being ended

    result, session = chat("Hi\nGo on\n", twice())
    assert (result.exit_code, result.stdout, result.stderr) == (130, "one\n", foot("one") + "\n")  # below ^C
    assert len(session.prompts) == 1


def test_ctrl_c_before_the_first_word_takes_the_question_back(chat: Chat, state: Path) -> None:
    def interrupt_prompt(progress: Callable[[int, int], None]) -> None:
        progress(512, 2048)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on after Ctrl-C")

    result, session = chat("Hi\nlong\nBye\n", say("one"), [interrupt_prompt], say("two"))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "one\ntwo\n", foot("one") + foot("two"))
    assert session.prompts[2] == "<u>Hi</><a>one</><u>Bye</><a>"
    assert [entry["content"] for entry in kept(state)[0]] == ["Hi", "one", "Bye", "two"]


def test_a_question_that_does_not_fit_is_taken_back(chat: Chat) -> None:
    result, session = chat("Hi\nlong\nBye\n", say("one"), [ContextFull("the context is full")], say("two"))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert result.stderr == foot("one") + "cadcpp: the context is full; /reset starts over\n" + foot("two")
    assert session.prompts[2] == "<u>Hi</><a>one</><u>Bye</><a>"


def test_a_failure_in_mid_reply_keeps_its_part(chat: Chat) -> None:
    result, session = chat("Hi\nGo on\n", [*say("one", finish=None), NativeError("no luck")], say("two"))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert result.stderr == foot("one") + "cadcpp: no luck\n" + foot("two")
    assert session.prompts[1] == "<u>Hi</><a>one</><u>Go on</><a>"


def test_a_question_that_the_template_refuses_is_taken_back(chat: Chat) -> None:
    result, session = chat("refuse\nHi\n", say("one"))
    assert result.stdout == "one\n"
    assert result.stderr == "cadcpp: the chat template refuses this conversation\n" + foot("one")
    assert session.prompts == ["<u>Hi</><a>"]


@pytest.mark.parametrize(
    ("n", "remark"),
    [
        pytest.param("3", "[cut after 3 tokens: /set n 6 allows longer replies]\n", id="by -n"),
        pytest.param("9", "[cut after 3 tokens, the context is full: raise --ctx, or /reset]\n", id="by the context"),
    ],
)
def test_a_reply_that_was_cut_says_so(chat: Chat, n: str, remark: str) -> None:
    result, _ = chat("Hi\n", say("one", finish="length"), options=["-n", n])
    assert (result.stdout, result.stderr) == ("one\n", foot("one") + remark)


def test_bytes_that_are_no_text_do_not_end_the_session(chat: Chat) -> None:
    result, session = chat(b"caf\xe9\nHi\n", say("one"), say("two"))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert session.prompts[0] == "<u>caf�</><a>"


# Going on with an earlier chat. -----------------------------------------------------------------------


def test_a_chat_goes_on(chat: Chat, state: Path) -> None:
    chat("a\nb\n", say("one"), [*say("tw", finish=None), interrupt], options=["--system", "Be brief."])
    result, session = chat("c\n", say("three"), options=["--continue"])
    first, _ = sorted((state / "cadcpp" / "chats").iterdir())
    assert result.stderr == (
        f"goes on with {first}, 2 questions; the last reply was cut off: /regen writes it anew\n" + foot("three")
    )
    assert session.prompts == ["<s>Be brief.</><u>a</><a>one</><u>b</><a>tw</><u>c</><a>"]
    assert [entry["content"] for entry in kept(state)[1]] == ["Be brief.", "a", "one", "b", "tw", "c", "three"]


def test_a_chat_goes_on_under_another_system_prompt(chat: Chat) -> None:
    chat("a\n", say("one"), options=["--system", "Be brief."])
    _, session = chat("b\n", say("two"), options=["--continue", "--system", "Sing."])
    assert session.prompts == ["<s>Sing.</><u>a</><a>one</><u>b</><a>"]


def test_no_chat_to_go_on_with(chat: Chat, state: Path) -> None:
    result, _ = chat("a\n", options=["--continue"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"cadcpp: no chat to go on with in {state}/cadcpp: leave out --continue\n"


def test_a_place_where_nothing_can_be_written(chat: Chat, state: Path) -> None:
    state.write_text("a file in the way")
    result, _ = chat("a\nb\n", say("one"), say("two"))
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    lost, *rest = result.stderr.splitlines(keepends=True)
    assert lost.startswith("cadcpp: cannot write") and lost.endswith("this chat is no longer kept\n")
    assert rest == [foot("one"), foot("two")]


def test_nobody_else_can_read_what_was_said(chat: Chat, state: Path) -> None:
    chat("a\n", say("one"))
    (file,) = (state / "cadcpp" / "chats").iterdir()
    assert file.stat().st_mode & 0o077 == 0 and file.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.name != "/quit"], ids=lambda c: c.name)
def test_a_mistake_in_a_command_is_one_line_and_the_chat_goes_on(
    chat: Chat, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    def fails(_talk: object, _rest: str) -> str:
        raise RuntimeError("of two\nlines")

    monkeypatch.setattr(commands, "COMMANDS", (replace(command, run=fails),))
    result, _ = chat(f"{command.name} x\nHi\n", say("Hello!"))
    assert (result.exit_code, result.stdout) == (0, "Hello!\n")
    assert result.stderr == "cadcpp: RuntimeError: of two lines\n" + foot("Hello!")


def test_a_mistake_in_a_reply_is_one_line_and_the_chat_goes_on(chat: Chat, state: Path) -> None:
    result, session = chat("a\nb\nc\n", [chunk("on"), MemoryError("no room")], [ValueError("odd")], say("last"))
    assert (result.exit_code, result.stdout) == (0, "on\nlast\n")
    assert result.stderr == f"{foot('on')}cadcpp: MemoryError: no room\ncadcpp: ValueError: odd\n{foot('last')}"
    assert session.prompts[-1] == "<u>a</><a>on</><u>c</><a>"  # what came to nothing is not in the conversation
    assert [message.get("content") for message in kept(state)[0]] == ["a", "on", "c", "last"]


@pytest.mark.parametrize("command", ["/read", "/save", "/load"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("~nobody-at-all/x", "~nobody-at-all has no home directory: name the file by its whole path"),
        ("/proc/no/such/x", "/proc/no/such/x"),
        ("x\0y", "null byte"),
        ("x" * 5000, "File name too long"),
    ],
    ids=["home", "nowhere", "nul", "long"],
)
def test_a_path_that_is_none_is_one_line(chat: Chat, command: str, path: str, said: str) -> None:
    result, _ = chat(f"{command} {path}\nHi\n", say("Hello!"))
    (line, _) = result.stderr.splitlines()
    assert line.startswith("cadcpp: ") and said in line and result.stdout == "Hello!\n"


def test_a_user_without_a_home_is_told_before_anything_is_loaded(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cadcpp.cli.chat.state_dir.state_dir", lambda: None)
    result, _ = chat("Hi\n/reset\n/system be brief\nHi\n", say("Hello!"), say("Hi."))
    assert (result.exit_code, result.stdout) == (0, "Hello!\nHi.\n")
    said = "cadcpp: this chat is not kept: there is no home directory: set HOME or XDG_STATE_HOME\n"
    assert result.stderr.startswith(said + foot("Hello!")) and result.stderr.count("not kept") == 1
    result, _ = chat("Hi\n", options=["--continue"])
    assert result.exit_code == 2 and "no chat to go on with in no place: leave out" in result.stderr
