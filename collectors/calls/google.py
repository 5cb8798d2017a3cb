"""google-genai: its calls, below automatic function calling, each round of which is one, and what an answer tells."""

from typing import Any, Final

from tallystick.collectors.calls.answers import Answer, count
from tallystick.collectors.calls.methods import Asked, Client, Method
from tallystick.collectors.calls.request import Usage


class Content(Answer):
    """Of `generateContent`. What a usage leaves out is 0, as in all of Google's JSON; the prompt includes what was cached."""

    __slots__ = ()

    def whole(self, answer: Any) -> None:
        self.see(answer)
        self.complete = True
        self.first_ns, self.first_kind = 0, ""
        self.parts.clear()
        self.kept.release()

    def see(self, chunk: Any) -> None:
        if self.response_id is None:
            self.response_id, self.model = chunk.response_id, chunk.model_version
        if chunk.usage_metadata is not None:
            self.usage = chunk.usage_metadata
        for candidate in chunk.candidates or ():
            if candidate.content is not None:
                for part in candidate.content.parts or ():
                    if part.text:
                        self.heard(part.text, "reasoning" if part.thought else "content")
                    elif part.function_call is not None:
                        self.tool_calls += 1
                        self.heard(f"{part.function_call.name}{part.function_call.args}", "tool_call")
            if candidate.finish_reason is not None:
                self.complete = True

    def _buckets(self, usage: Any) -> Usage | None:
        prompt = count(usage.prompt_token_count)
        if prompt is None:
            return None
        cached, thoughts = count(usage.cached_content_token_count) or 0, count(usage.thoughts_token_count) or 0
        # What tools brought, as a search does, stands beside the prompt, and thoughts beside the candidates.
        uncached = prompt + (count(usage.tool_use_prompt_token_count) or 0) - cached
        output = (count(usage.candidates_token_count) or 0) + thoughts
        return Usage(uncached if uncached >= 0 else None, cached, 0, 0, output, thoughts, "provider")

    @property
    def audio(self) -> tuple[int | None, int | None]:
        usage = self.usage
        return (None, None) if usage is None else (_audio(usage.prompt_tokens_details), _audio(usage.candidates_tokens_details))


class Embedding(Answer):
    """Of `embedContent`; Vertex tells the tokens of each text."""

    __slots__ = ()

    def whole(self, answer: Any) -> None:
        self.complete = True
        told = answer.usage_metadata.prompt_token_count if answer.usage_metadata is not None else None
        if told is None:
            each = [one.statistics.token_count for one in answer.embeddings or () if one.statistics is not None]
            told = int(sum(each)) if each and None not in each else None
        self.usage = told

    def _buckets(self, usage: Any) -> Usage | None:
        return None if count(usage) is None else Usage(usage, None, None, None, 0, None, "provider")


def _audio(details: Any) -> int | None:
    return sum(count(one.token_count) or 0 for one in details or () if one.modality == "AUDIO") or None


def _asked(operation: str, answer: type[Answer], streamed: bool = False) -> Any:
    def asked(models: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Asked | None:
        api = models._api_client
        provider = "gcp.vertex_ai" if api.vertexai else "gcp.gemini"
        return Asked(operation, kwargs, streamed, api._http_options.base_url or "", provider, answer())

    return asked


_GENERATE: Final = _asked("generate_content", Content)
_STREAM: Final = _asked("generate_content", Content, streamed=True)
_EMBED: Final = _asked("embeddings", Embedding)

CLIENT: Final = Client(
    "google-genai",
    {
        "google.genai.models": (
            Method("Models", "_generate_content", "call", _GENERATE),
            Method("AsyncModels", "_generate_content", "async call", _GENERATE),
            Method("Models", "_generate_content_stream", "generator", _STREAM),
            Method("AsyncModels", "_generate_content_stream", "async call of a generator", _STREAM),
            Method("Models", "_embed_content", "call", _EMBED),
            Method("AsyncModels", "_embed_content", "async call", _EMBED),
        )
    },
)
