"""openai-agents: an agent run over responses and over chat completions, plain, async, streamed."""

import openai
from agents import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, set_tracing_export_api_key

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""

# Its own export of traces to OpenAI goes nowhere without a key.
set_tracing_export_api_key("")


def _agent(provider: str, model: str = "gpt-lab", *, chat: bool = False) -> Agent:
    client = openai.AsyncOpenAI(base_url=f"{provider}/v1", api_key="sk-of-a-provider", max_retries=0)
    kind = OpenAIChatCompletionsModel if chat else OpenAIResponsesModel
    return Agent(name="helper", instructions="be brief", model=kind(model, client))


def run_sync(provider: str) -> object:
    found = Runner.run_sync(_agent(provider), "a secret question")
    return [found.final_output, [(one.usage.input_tokens, one.usage.output_tokens) for one in found.raw_responses]]


async def run(provider: str) -> object:
    return (await Runner.run(_agent(provider, "gpt-lab-reason"), "a secret question")).final_output


async def streamed(provider: str) -> object:
    found = Runner.run_streamed(_agent(provider), "a secret question")
    return [*[event.type async for event in found.stream_events()], found.final_output]


async def cached(provider: str) -> object:
    return (await Runner.run(_agent(provider, "gpt-lab-cached"), "a secret question")).final_output


async def chat(provider: str) -> object:
    return (await Runner.run(_agent(provider, "gpt-lab-cw", chat=True), "a secret question")).final_output


async def chat_streamed(provider: str) -> object:
    found = Runner.run_streamed(_agent(provider, chat=True), "a secret question")
    return [*[event.type async for event in found.stream_events()], found.final_output]


async def cancelled(provider: str) -> object:
    found = Runner.run_streamed(_agent(provider, "gpt-lab-slow"), "a secret question")
    async for event in found.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            found.cancel()
    return found.is_complete


async def error_429(provider: str) -> object:
    return (await Runner.run(_agent(provider, "gpt-lab-429"), "a secret question")).final_output
