"""Random-weight Llama models, small enough to be served on a CPU: for trying a probe out, for tests, and for demonstrations.

What they write is noise, at the pace of their size; nothing is downloaded. F32, Q8_0 and Q4_0 are of the same weights. Needs the extra `llamacpp`.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

Quantisation = Literal["F32", "Q8_0", "Q4_0"]
QUANTISATIONS: Final = ("F32", "Q8_0", "Q4_0")

Weights = Mapping[str, NDArray[np.float32]]
"""By the names of Hugging Face's Llama."""

_VOCABULARY: Final = 512
_CONTEXT: Final = 4096
_SEED: Final = 0
_ROPE_BASE: Final = 10_000.0
_EPSILON: Final = 1e-5
_SPECIAL: Final = ("<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
_CHAT: Final = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_GGUF_NAMES: Final = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Of a Llama: hidden and inner width, layers, heads of queries and of keys. vLLM needs heads of at least 32."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def head(self) -> int:
        """Width of one."""
        return self.hidden // self.heads


SMALL: Final = Shape(hidden=256, inner=512, layers=4, heads=4, kv_heads=2)
"""3 M weights, 11 MB as F32."""
LARGER: Final = Shape(hidden=512, inner=1536, layers=8, heads=8, kv_heads=4)
"""26 M weights, 101 MB as F32."""


def generated_gguf(folder: Path, quantisation: Quantisation = "F32") -> Path:
    """The file `generated-<quantisation>.gguf` in the folder, for llama.cpp; made unless it is there. Raises OSError."""
    file = folder / f"generated-{quantisation.lower()}.gguf"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        try:
            _write_gguf(unfinished, SMALL, quantisation)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    return file


def generated_folder(folder: Path) -> Path:
    """The folder `generated` in the folder, in Hugging Face's form, for vLLM, SGLang and transformers. Needs safetensors, too. Raises OSError."""
    out = folder / "generated"
    if not (out / "model.safetensors").exists():
        from safetensors.numpy import save_file

        out.mkdir(parents=True, exist_ok=True)
        _tokenizer().save(str(out / "tokenizer.json"))
        for name, content in _settings(LARGER).items():
            (out / name).write_text(json.dumps(content), encoding="utf-8")
        unfinished = out / f"model.{os.getpid()}"
        save_file(dict(_weights(LARGER)), str(unfinished), metadata={"format": "pt"})
        unfinished.replace(out / "model.safetensors")
    return out


@cache
def _tokenizer() -> Tokenizer:
    """Pairs of letters from printable ASCII, so that every token shows."""
    rng = np.random.default_rng(_SEED)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) + " " for _ in range(400)]
    alphabet = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(words, trainer)
    return tokenizer


def _weights(shape: Shape) -> Weights:
    rng = np.random.default_rng(_SEED)

    def weight(*size: int) -> NDArray[np.float32]:
        # Large enough for the output to be no one token for ever.
        return rng.standard_normal(size, dtype=np.float32) * np.float32(0.16 if size[0] == _VOCABULARY else 0.08)

    ones = np.ones(shape.hidden, np.float32)
    weights = {
        "model.embed_tokens": weight(_VOCABULARY, shape.hidden),
        "model.norm": ones,
        "lm_head": weight(_VOCABULARY, shape.hidden),
    }
    for layer in range(shape.layers):
        weights |= {
            f"model.layers.{layer}.{name}": value
            for name, value in {
                "self_attn.q_proj": weight(shape.heads * shape.head, shape.hidden),
                "self_attn.k_proj": weight(shape.kv_heads * shape.head, shape.hidden),
                "self_attn.v_proj": weight(shape.kv_heads * shape.head, shape.hidden),
                "self_attn.o_proj": weight(shape.hidden, shape.heads * shape.head),
                "mlp.gate_proj": weight(shape.inner, shape.hidden),
                "mlp.up_proj": weight(shape.inner, shape.hidden),
                "mlp.down_proj": weight(shape.hidden, shape.inner),
                "input_layernorm": ones,
                "post_attention_layernorm": ones,
            }.items()
        }
    return {f"{name}.weight": value for name, value in weights.items()}


def _settings(shape: Shape) -> dict[str, dict[str, Any]]:
    """The JSON files of a Hugging Face folder, by name."""
    return {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "model_max_length": _CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": _CHAT,
        },
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1},
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.inner,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head,
            "vocab_size": _VOCABULARY,
            "max_position_embeddings": _CONTEXT,
            "rms_norm_eps": _EPSILON,
            "hidden_act": "silu",
            "rope_theta": _ROPE_BASE,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
            "torch_dtype": "float32",
        },
    }


def _write_gguf(file: Path, shape: Shape, quantisation: Quantisation) -> None:
    writer = gguf.GGUFWriter(str(file), "llama")
    _write_settings(writer, shape, quantisation)
    _write_tokenizer(writer)
    for key, value in _weights(shape).items():
        name = _gguf_name(key)
        heads = shape.heads if ".attn_q" in name else shape.kv_heads if ".attn_k" in name else 0
        tensor = _interleaved(value, heads) if heads else value
        if quantisation == "F32" or tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            kind = gguf.GGMLQuantizationType[quantisation]
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_settings(writer: gguf.GGUFWriter, shape: Shape, quantisation: Quantisation) -> None:
    writer.add_name("generated")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(_EPSILON)
    writer.add_rope_freq_base(_ROPE_BASE)
    writer.add_vocab_size(_VOCABULARY)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if quantisation == "F32" else f"MOSTLY_{quantisation}"])


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
    described = json.loads(_tokenizer().to_str())
    vocabulary: dict[str, int] = described["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    padding = _VOCABULARY - len(names)
    kinds = [int(gguf.TokenType.CONTROL if name in _SPECIAL else gguf.TokenType.NORMAL) for name in names]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names + [f"[PAD{number}]" for number in range(padding)])
    writer.add_token_types(kinds + [int(gguf.TokenType.UNUSED)] * padding)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in described["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_eot_token_id(_SPECIAL.index("<|end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_CHAT)


def _gguf_name(key: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`."""
    name = key.removesuffix(".weight")
    if name in _GGUF_NAMES:
        return f"{_GGUF_NAMES[name]}.weight"
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{_GGUF_NAMES[part]}.weight"


def _interleaved(tensor: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rotary halves side by side, as GGUF has them: convert_hf_to_gguf.py's LlamaModel.permute."""
    rows, columns = tensor.shape
    return tensor.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
