"""Definitions of tools, as they are counted: by the formula of OpenAI's cookbook, else as their JSON.

https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken, "Counting tokens for chat completions with tool calls"
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from tallystick.collectors.tokens.parts import mapping

CLAUDE_PROMPT: Final = 346
"""Tokens of the prompt that Anthropic adds where there are tools, for most models of Claude 4 and with tool_choice auto.
https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview"""

_END: Final = 12
_PROPERTY: Final = 3
_DEPTH: Final = 8


def tool_tokens(tools: Iterable[object], encoding: str, count: Callable[[str], int]) -> int:
    """Tokens of all definitions together, in any provider's form. Tools that aren't functions count as their JSON."""
    each = 10 if encoding == "cl100k_base" else 7
    total = 0
    for tool in tools:
        for function in _functions(mapping(tool) or {}):
            if isinstance(name := function.get("name"), str):
                total += each + count(f"{name}:{_sentence(function.get('description'))}")
                total += _properties(_schema(function), count, 0)
            else:
                total += each + count(json.dumps(dict(function), default=str, ensure_ascii=False))
    return total + _END if total else 0


def _functions(tool: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    declared = tool.get("function_declarations") or tool.get("functionDeclarations")  # Gemini: several in one
    if isinstance(declared, (list, tuple)):
        yield from (function for one in declared if (function := mapping(one)))
        return
    found = mapping(tool.get("function") or tool.get("toolSpec"))
    yield tool if found is None else found


def _schema(function: Mapping[str, Any]) -> object:
    found = next(
        (s for name in ("parameters", "input_schema", "inputSchema", "parameters_json_schema") if (s := function.get(name))), None
    )
    inner = mapping(found)
    return inner.get("json", inner) if inner else None


def _properties(schema: object, count: Callable[[str], int], depth: int) -> int:
    """Of a JSON schema. The formula is published for flat ones; what is nested counts alike."""
    properties = mapping((mapping(schema) or {}).get("properties"))
    if not properties or depth > _DEPTH:
        return 0
    return _PROPERTY + sum(_property(name, mapping(said) or {}, count, depth) for name, said in properties.items())


def _property(name: str, said: Mapping[str, Any], count: Callable[[str], int], depth: int) -> int:
    total = _PROPERTY + count(f"{name}:{said.get('type', '')}:{_sentence(said.get('description'))}")
    if isinstance(choices := said.get("enum"), (list, tuple)):
        total += sum(_PROPERTY + count(str(choice)) for choice in choices) - _PROPERTY
    return total + sum(_properties(inner, count, depth + 1) for inner in _within(said))


def _within(said: Mapping[str, Any]) -> Iterator[object]:
    yield said
    yield said.get("items")
    for name in ("anyOf", "oneOf", "allOf"):
        alternatives = said.get(name)
        yield from alternatives if isinstance(alternatives, (list, tuple)) else ()


def _sentence(description: object) -> str:
    return str(description or "").removesuffix(".")
