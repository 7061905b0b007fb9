"""Chat templates and vocabularies: what begins a text, and that a conversation has the ids of its whole text."""

import ctypes
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cadcpp.chat.conversation import Conversation
from cadcpp.chat.template import Template
from cadcpp.chat.transcript import Message
from cadcpp.cli import main
from cadcpp.errors import ConfigError
from cadcpp.llama.llama import Llama
from cadcpp.models.parallel_sampler import opening
from cadcpp.native.model import Model
from tests.support.oracle import api, upstream
from tests.support.vocab import BOS, EOS

CONTROL = ("<|im_start|>", "<|im_end|>", "[/INST]")
TEMPLATES = {
    "chatml": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    ),
    "llama 2": (
        "{% for m in messages %}"
        "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
        "{% elif m['role'] == 'system' %}{{ '<<SYS>>' + m['content'] }}"
        "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "no control": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:",
    "zephyr": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}<|assistant|>\n",
    "trims": (
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</{{ m.role }}>{% endfor %}"
        "<assistant>"
    ),
    "no system": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}the {{ m['role'] }} {{ m['content'] }}{% endfor %} and"
    ),
}
VOCABULARIES: dict[str, dict[str, Any]] = {
    "sentencepiece": {},
    "sentencepiece, no blank": {"add_space": False},
    "sentencepiece, nothing added": {"add_bos": False},
    "sentencepiece, an end wanted": {"add_eos": True},
    "sentencepiece, silent": {"add_bos": None},
    "byte level": {"model": "gpt2", "add_bos": False},
    "byte level, begun": {"model": "gpt2"},
    "byte level, an end wanted": {"model": "gpt2", "add_eos": True},
}
REPLIES = ("the sea", " the sand is in the hand. ", "x", "the\n\nthing,  and \u00e9", "")


@pytest.fixture
def speaker(tiny: Callable[..., Path]) -> Callable[..., Path]:
    """A model with a template and a vocabulary."""

    def make(template: str, **vocabulary: Any) -> Path:
        return tiny("llama", n_padding=3, chat_template=template, vocabulary={"control": CONTROL, **vocabulary})

    return make


def llama_cpps(model: Model, text: str) -> list[int]:
    """The ids that llama.cpp gives, with all that it adds."""
    data, room = text.encode(), (ctypes.c_int32 * 1000)()
    return list(room[: api.llama_tokenize(model.vocab, data, len(data), room, 1000, True, True)])


def chats(model: Model, text: str) -> list[int]:
    """The ids of a rendered text as llama.cpp's server has them, but for an end token that only the file wants.

    `common/chat.cpp` takes the text of the first token away where the tokenizer adds it.
    """
    begin = model.piece(BOS, special=True).decode()
    if api.llama_vocab_get_add_bos(model.vocab):
        text = text.removeprefix(begin)
    ids = llama_cpps(model, text)
    return ids[:-1] if api.llama_vocab_get_add_eos(model.vocab) else ids


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("system", [None, "Be of the sea."], ids=["", "system"])
def test_a_conversation_has_the_ids_of_its_whole_text(
    speaker: Callable[..., Path], template: str, vocabulary: str, system: str | None
) -> None:
    with closing(Model(speaker(TEMPLATES[template], **VOCABULARIES[vocabulary]))) as model:
        conversation = Conversation(Template(model), system)
        for number, reply in enumerate(REPLIES):
            ids = conversation.ask(f"the thing {number}")
            messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
            assert ids == chats(model, Template(model).render(messages))
            drawn = [token for letter in reply for token in model.tokenize(letter, add_special=False)]
            conversation.answer(reply, drawn, partial=number == 2)
        again = Conversation(Template(model)).replay(conversation.messages)
        assert again.ask("and?") == conversation.ask("and?")
        assert conversation.undo() == "and?"
        assert conversation.undo() == f"the thing {len(REPLIES) - 1}"
        assert conversation.ask(f"the thing {len(REPLIES) - 1}") == ids


@pytest.mark.parametrize(("add_bos", "add_eos"), [*product([True, False, None], [True, False])])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "template", ["{{ bos_token }}[INST] {{ messages[0].content }}", "[INST] {{ messages[0].content }}"]
)
def test_a_chat_begins_once_and_goes_on(
    speaker: Callable[..., Path], template: str, kind: str, add_bos: bool | None, add_eos: bool
) -> None:
    """The token is there if the template or the file wants it, and never twice; no end stands before the reply."""
    with closing(Model(speaker(template, model=kind, add_bos=add_bos, add_eos=add_eos))) as model:
        ids = Conversation(Template(model)).ask("the sea")
        wanted = add_bos is True or (add_bos is None and kind == "llama") or "bos_token" in template
        assert ids.count(BOS) == wanted and (ids[0] == BOS) == wanted
        assert EOS not in ids


@pytest.mark.parametrize(("add_bos", "add_eos"), [*product([True, False, None], [True, False])])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("prompt", ["the sea", "<s>the sea", " the sea</s>", ""])
def test_a_prompt_begins_as_with_llama_cpp(
    speaker: Callable[..., Path], kind: str, add_bos: bool | None, add_eos: bool, prompt: str
) -> None:
    path = speaker("x", model=kind, add_bos=add_bos, add_eos=add_eos)
    with closing(Model(path)) as model:
        expected = llama_cpps(model, prompt)
        assert model.tokenize(prompt) == (expected[:-1] if add_eos else expected)


@pytest.mark.filterwarnings("ignore:Detected duplicate leading:RuntimeWarning")
@pytest.mark.parametrize(("add_bos", "add_eos"), [*product([True, False], [True, False])])
@pytest.mark.parametrize("prompt", ["the sea", "<s>the sea"])
def test_the_class_begins_a_prompt_as_upstreams_does(
    speaker: Callable[..., Path], add_bos: bool, add_eos: bool, prompt: str
) -> None:
    path = speaker(TEMPLATES["trims"], add_bos=add_bos, add_eos=add_eos)
    with Llama(str(path), n_ctx=256, n_threads=1, verbose=False) as mine, upstream(path, n_ctx=256) as theirs:
        calls: list[Callable[[Any], Any]] = [
            lambda llama: llama(prompt, max_tokens=1),
            lambda llama: llama.create_chat_completion([{"role": "user", "content": prompt}], max_tokens=1),
        ]
        for call in calls:
            answers = [call(llama)["usage"]["prompt_tokens"] for llama in (mine, theirs)]
            assert answers[0] == answers[1] and mine.eval_tokens == theirs.eval_tokens


@pytest.mark.parametrize(("prompt", "twice"), [("<s>the sea", True), ("the sea", False)])
def test_a_prompt_that_begins_twice_is_told(speaker: Callable[..., Path], prompt: str, twice: bool) -> None:
    done = CliRunner().invoke(main, ["generate", "-m", str(speaker("x")), "-n", "2", "-p", prompt])
    assert done.exit_code == 0, done.output
    assert ("the prompt begins with <s>, and the model's file adds one" in done.stderr) == twice


@pytest.mark.parametrize("name", ["tools", "documents"])
def test_what_is_not_given_to_a_template_is_none(speaker: Callable[..., Path], name: str) -> None:
    source = f"{{% if {name} is not none %}}{{{{ raise_exception('a block for {name}') }}}}{{% endif %}}the sea"
    with closing(Model(speaker(source))) as model:
        assert Template(model).render([{"role": "user", "content": "x"}]) == "the sea"


USES_SYSTEM = {
    "as a key": "{% for m in messages %}{{ m['content'] }};{% endfor %}",
    "as an attribute": "{% for m in messages %}{{ m.content }};{% endfor %}",
    "by get": "{% for m in messages %}{{ m.get('content', '') }};{% endfor %}",
    "by items": "{% for m in messages %}{% for k, v in m.items() %}{{ v if k == 'content' }}{% endfor %};{% endfor %}",
}
LACKS_SYSTEM = {
    "refuses": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
    "wants turns": (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
    ),
    "leaves it out": "",
}
TURNS = "{% for m in messages %}{% if m.role != 'system' %}{{ m.role[0] }}:{{ m.content }};{% endif %}{% endfor %}"


@pytest.mark.parametrize("source", USES_SYSTEM.values(), ids=USES_SYSTEM)
def test_a_system_message_stays_one_where_the_template_reads_it(speaker: Callable[..., Path], source: str) -> None:
    with closing(Model(speaker(source))) as model:
        messages = [{"role": "system", "content": "Sing."}, {"role": "user", "content": "Hi"}]
        assert Template(model).render(messages) == "Sing.;Hi;"


@pytest.mark.parametrize("source", LACKS_SYSTEM.values(), ids=LACKS_SYSTEM)
def test_a_system_message_without_a_place_goes_in_front_of_the_first_question(
    speaker: Callable[..., Path], source: str
) -> None:
    with closing(Model(speaker(source + TURNS))) as model:
        template = Template(model)
        messages = [("system", "Sing."), ("user", "Hi"), ("assistant", "La"), ("user", "Go on")]
        rendered = template.render([{"role": role, "content": text} for role, text in messages])
        assert rendered == "u:Sing.\nHi;a:La;u:Go on;"
        assert template.render([{"role": "user", "content": "Hi"}]) == "u:Hi;"
        assert Conversation(template, "Sing.").ask("Hi") == template.tokenize("u:Sing.\nHi;")


def test_a_conversation_that_a_template_refuses_changes_nothing(speaker: Callable[..., Path]) -> None:
    source = "{% if 'bad' in messages[-1].content %}{{ raise_exception('no') }}{% endif %}{{ messages[-1].content }}"
    with closing(Model(speaker(source))) as model:
        conversation = Conversation(Template(model))
        with pytest.raises(ConfigError, match="refuses"):
            conversation.ask("bad")
        with pytest.raises(ConfigError, match="refuses"):
            conversation.replay([Message("user", "bad")])
        assert conversation.messages == []


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("source", [TEMPLATES["llama 2"], TEMPLATES["no control"]], ids=["llama 2", "no control"])
def test_an_opening_has_the_tokens_of_a_whole_text(speaker: Callable[..., Path], source: str, vocabulary: str) -> None:
    with closing(Model(speaker(source, **VOCABULARIES[vocabulary]))) as model:
        start, whole = opening(model), Conversation(Template(model)).ask("QUESTION")
        assert whole[: len(start.prompt)] == start.prompt and whole[-len(start.turn) :] == start.turn
        between = model.detokenize(whole[len(start.prompt) : -len(start.turn)])
        assert between.strip() == b"QUESTION"
