"""Clients of other projects, unchanged, on `cadcpp serve` with a draft at work, as far as they are installed."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `server` is not installed")

import httpx  # noqa: E402
import pydantic  # noqa: E402

from cadcpp import Llama  # noqa: E402
from cadcpp.models.demo import DemoPair  # noqa: E402
from tests.support.server import Server, serving  # noqa: E402

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of the libraries' own

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}
MODULES = {"llama-index-llms-openai-like": "llama_index.llms.openai_like", "pydantic-ai-slim": "pydantic_ai"}
ASK = "What is the weather in Paris?"


class Person(pydantic.BaseModel):
    """What structured answers have to be."""

    name: str = pydantic.Field(pattern="^[A-Z][a-z]{1,10}$")
    age: int | None = pydantic.Field(ge=0, le=130)


@pytest.fixture(scope="module")
def server(target: Path, demo: DemoPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    drafting = ["-d", demo.draft, "--fallback", "none"]  # always: in memory it would seldom pay
    with serving(log, "-m", target, *drafting, "--ctx", 2048, "--threads", 1, "--alias", "smol") as running:
        yield running


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of the server; afterwards drafts have been accepted."""
    for name, value in {
        "OPENAI_API_KEY": "x",
        "OPENAI_BASE_URL": server.url,
        "LITELLM_LOCAL_MODEL_COST_MAP": "1",
    }.items():
        monkeypatch.setenv(name, value)
    root = server.url.removesuffix("/v1")

    def accepted() -> int:
        lines = httpx.get(f"{root}/metrics").text.splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("cadcpp_accepted_tokens_total")))

    before = accepted()
    yield server.url
    assert accepted() > before


def needs(*packages: str) -> None:
    """Skip unless these are installed; `-s` shows versions."""
    for package in packages:
        pytest.importorskip(MODULES.get(package, package.replace("-", "_")))
        try:
            print(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            pass


def test_openai_over_three_turns(url: str) -> None:
    needs("openai")
    import openai

    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": [{"type": "text", "text": ASK}]}]
    given: dict[str, Any] = {"model": "smol", "tools": [WEATHER], "temperature": 0, "max_tokens": 60}
    for more in ("And in Oslo?", "And in Rome?"):
        with client.chat.completions.stream(messages=messages, tool_choice="required", **given) as stream:
            message = stream.get_final_completion().choices[0].message
        assert message.tool_calls and message.tool_calls[0].function.name == "get_weather"
        messages += [message.model_dump()]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls]
        assert client.chat.completions.create(messages=messages, **given).choices[0].message.role == "assistant"
        messages += [{"role": "user", "content": more}]


def test_langchain_on_the_server(url: str) -> None:
    needs("langchain-openai")
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(base_url=url, api_key="x", model="smol", temperature=0, max_tokens=60)
    messages: list[Any] = [HumanMessage(ASK)]
    answer = model.bind_tools([WEATHER], tool_choice="any").invoke(messages)
    assert answer.tool_calls[0]["name"] == "get_weather"
    messages += [answer, *(ToolMessage("sunny", tool_call_id=call["id"]) for call in answer.tool_calls)]
    assert model.bind_tools([WEATHER]).invoke(messages).content
    assert model.with_structured_output(Person).invoke("Tom is 5 years old.")


@pytest.mark.parametrize("kind", ["LlamaCpp", "ChatLlamaCpp"])
def test_langchain_on_the_class(kind: str, target: Path, demo: DemoPair, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("langchain-community")
    import langchain_community.chat_models.llamacpp as chats
    import langchain_community.llms.llamacpp as texts

    monkeypatch.setattr("llama_cpp.Llama", Llama)
    made = getattr(texts if kind == "LlamaCpp" else chats, kind)
    options: dict[str, Any] = {"n_ctx": 512, "max_tokens": 40, "temperature": 0, "n_threads": 1, "verbose": False}
    options["model_kwargs"] = {"draft_model_path": str(demo.draft), "fallback": "none"}
    model = made(model_path=str(target), **options)
    assert model.invoke("Name three colours.")
    assert model.client.speculates and model.client.last_stats.tokens_per_pass > 1


def test_guidance_on_the_class(target: Path, demo: DemoPair) -> None:
    needs("guidance")
    from guidance import gen, models, select

    options: dict[str, Any] = {"draft_model_path": str(demo.draft), "fallback": "none", "logits_all": True}
    made = Llama(str(target), n_ctx=512, n_threads=1, verbose=False, **options)
    text = models.LlamaCpp(made, echo=False)
    text += "The capital of France is " + select(["Paris", "Rome"], name="city")
    text += ". Its river is " + gen(name="river", max_tokens=8)
    assert text["city"] in ("Paris", "Rome") and text["river"]


def test_litellm(url: str) -> None:
    needs("litellm")
    import litellm

    given: dict[str, Any] = {
        "model": "openai/smol",
        "api_base": url,
        "api_key": "x",
        "temperature": 0,
        "max_tokens": 60,
    }
    messages: list[Any] = [{"role": "user", "content": ASK}]
    message = litellm.completion(messages=messages, tools=[WEATHER], tool_choice="required", **given).choices[0].message
    messages += [message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}]
    assert litellm.completion(messages=messages, tools=[WEATHER], **given).choices[0].message.content
    by_ollama = given | {"model": "ollama_chat/smol", "api_base": url.removesuffix("/v1")}
    assert litellm.completion(messages=messages[:1], **by_ollama).choices[0].message.content


def test_haystack(url: str) -> None:
    needs("haystack")
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import Tool
    from haystack.utils import Secret

    parameters = WEATHER["function"]["parameters"]
    tool = Tool(name="get_weather", description="Weather", parameters=parameters, function=lambda city: "sunny")
    writer = OpenAIChatGenerator(api_key=Secret.from_token("x"), model="smol", api_base_url=url, tools=[tool])
    messages = [ChatMessage.from_user(ASK)]
    given = {"temperature": 0, "max_tokens": 60}
    reply = writer.run(messages, generation_kwargs={**given, "tool_choice": "required"})["replies"][0]
    messages += [reply, *(ChatMessage.from_tool("sunny", origin=call) for call in reply.tool_calls)]
    assert writer.run(messages, generation_kwargs=given)["replies"][0].text


def test_llama_index(url: str) -> None:
    needs("llama-index-llms-openai-like")
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(model="smol", api_base=url, api_key="x", is_chat_model=True, temperature=0, max_tokens=20)
    assert "".join(chunk.delta or "" for chunk in model.stream_complete("Hi")) == model.complete("Hi").text


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])  # JSON sends no schema: it is the model's to keep it
def test_instructor(url: str, mode: str) -> None:
    needs("instructor")
    import instructor
    import openai

    client = instructor.from_openai(openai.OpenAI(base_url=url, api_key="x"), mode=instructor.Mode[mode])
    messages = [{"role": "user", "content": "Tom is 5 years old."}]
    assert client.chat.completions.create(
        model="smol", response_model=Person, messages=messages, temperature=0, max_tokens=200
    )


def test_smolagents(url: str) -> None:
    needs("smolagents")
    from smolagents import OpenAIServerModel, ToolCallingAgent, tool

    asked = []

    @tool  # type: ignore[untyped-decorator, unused-ignore]
    def get_weather(city: str) -> str:
        """Weather of a city.

        Args:
            city: The city.
        """
        asked.append(city)
        return "sunny"

    model = OpenAIServerModel(model_id="smol", api_base=url, api_key="x", temperature=0, max_tokens=100)
    agent = ToolCallingAgent(tools=[get_weather], model=model, max_steps=2, verbosity_level=0)
    del agent.tools["final_answer"]  # whose text such a small model does not end
    agent.run(ASK)
    assert asked and all(isinstance(city, str) for city in asked)


def test_pydantic_ai(url: str) -> None:
    needs("pydantic-ai-slim")
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("smol", provider=OpenAIProvider(base_url=url, api_key="x"))
    agent = Agent(model, output_type=Person, model_settings={"temperature": 0, "max_tokens": 100})
    assert agent.run_sync("Tom is 5 years old.").output


def test_dspy(url: str) -> None:
    needs("dspy")
    import dspy

    with dspy.context(lm=dspy.LM("openai/smol", api_base=url, api_key="x", temperature=0, max_tokens=100, cache=False)):
        assert dspy.Predict("question -> answer")(question="What is the capital of France?").answer


def test_outlines(url: str) -> None:
    needs("outlines")
    import openai
    import outlines

    model = outlines.from_openai(openai.OpenAI(base_url=url, api_key="x"), "smol")
    assert Person.model_validate_json(model("Tom is 5 years old.", Person, max_tokens=100, temperature=0))
