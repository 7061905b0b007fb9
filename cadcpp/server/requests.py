"""What OpenAI's clients have come to say in other words since upstream's application was written."""

from typing import Any

from llama_cpp.server import types
from pydantic import model_validator


class CreateChatCompletionRequest(types.CreateChatCompletionRequest):  # type: ignore[misc]
    """Upstream's request, which may also ask for ``max_completion_tokens`` and a ``json_schema``."""

    @model_validator(mode="before")
    @classmethod
    def _translate(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if data.get("max_tokens") is None:
            data["max_tokens"] = data.get("max_completion_tokens")
        wanted = data.get("response_format")
        if isinstance(wanted, dict) and wanted.get("type") == "json_schema":
            schema = wanted.get("json_schema")
            if not isinstance(schema, dict) or "schema" not in schema:
                raise ValueError("response_format of type json_schema needs json_schema.schema")
            data["response_format"] = {"type": "json_object", "schema": schema["schema"]}
        return data
