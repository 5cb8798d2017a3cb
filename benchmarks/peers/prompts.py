"""Texts of exactly so many tokens, each seen once: a second time, an engine would have them in its cache."""

import json
from pathlib import Path
from random import Random

from peers.tools import CONVERSATIONS, OUTPUT, PROMPT, PROMPTS
from tokenizers import Tokenizer


def write(tokeniser: Path, folder: Path, tokens: int, output_tokens: int, count: int, seed: int) -> None:
    """For guidellm and aiperf a JSON object a line, for vLLM bench what ShareGPT looks like. tokeniser: a folder of Hugging Face's form."""
    model = Tokenizer.from_file(str(tokeniser / "tokenizer.json"))
    special = {model.token_to_id(token.content) for token in model.get_added_tokens_decoder().values()}
    ids = [number for number in range(model.get_vocab_size()) if number not in special]
    random = Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        drawn = model.decode(random.choices(ids, k=2 * tokens))
        # Tokens beside each other may be read as others: what counts is how the text is read.
        text = drawn[: model.encode(drawn, add_special_tokens=False).offsets[tokens - 1][1]]
        if len(model.encode(text, add_special_tokens=False).ids) == tokens:
            texts.append(text)
    lines = (json.dumps({PROMPT: text, "text": text, OUTPUT: output_tokens}) + "\n" for text in texts)
    (folder / PROMPTS).write_text("".join(lines), encoding="utf-8")
    conversations = [{"conversations": [{"value": text}, {"value": ""}]} for text in texts]
    (folder / CONVERSATIONS).write_text(json.dumps(conversations), encoding="utf-8")
