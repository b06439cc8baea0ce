"""Names and layouts of the weights: ours, shared by torch and the engine, and Hugging Face's, in published folders.

Ours fuses matrices with the same input (queries, keys and values; SwiGLU's gate and up), because on a CPU one large
matrix product is faster than three small ones. All matrices are (out, in), as in torch.nn.Linear. B is `blocks.I.`:

    embedding.weight (vocab, n_embd)              position.weight (context, n_embd), gpt2 only
    B attention_norm.weight (n_embd,)             B attention.qkv.weight ((n_head + 2 n_kv_head) head_dim, n_embd)
    B attention.q_norm.weight, k_norm (head_dim,) B attention.out.weight (n_embd, n_head head_dim)
    B mlp_norm.weight (n_embd,)                   B mlp.up.weight (intermediate, n_embd); qwen3: 2x, gate above up
    B mlp.down.weight (n_embd, intermediate)      final_norm.weight (n_embd,)
    head.weight (vocab, n_embd) unless tied       with config.bias, .bias beside each norm and each matrix of a block
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gptbox.errors import ModelFolderError
from gptbox.models.config import ModelConfig

Array = NDArray[np.float32]
Weights = dict[str, Array]

# our name within a block -> Hugging Face's
_GPT2_BLOCK = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp_norm": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
_QWEN3_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "attention.out": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "mlp.down": "mlp.down_proj",
}


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of a model with this configuration, by our name."""
    c = config
    qkv, mlp = (c.n_head + 2 * c.n_kv_head) * c.head_dim, c.intermediate_size
    matrices = {
        "attention.qkv": (qkv, c.n_embd),
        "attention.out": (c.n_embd, c.n_head * c.head_dim),
        "mlp.up": (mlp if c.architecture == "gpt2" else 2 * mlp, c.n_embd),
        "mlp.down": (c.n_embd, mlp),
    }
    block: dict[str, tuple[int, ...]] = {"attention_norm.weight": (c.n_embd,), "mlp_norm.weight": (c.n_embd,)}
    block |= {f"{name}.weight": shape for name, shape in matrices.items()}
    if c.architecture == "qwen3":
        block |= {"attention.q_norm.weight": (c.head_dim,), "attention.k_norm.weight": (c.head_dim,)}
    if c.bias:
        block |= {f"{name}.bias": (shape[0],) for name, shape in matrices.items()}
        block |= {"attention_norm.bias": (c.n_embd,), "mlp_norm.bias": (c.n_embd,)}
    result: dict[str, tuple[int, ...]] = {"embedding.weight": (c.vocab_size, c.n_embd)}
    if c.architecture == "gpt2":
        result["position.weight"] = (c.context_length, c.n_embd)
    result |= {f"blocks.{i}.{name}": shape for i in range(c.n_layer) for name, shape in block.items()}
    result["final_norm.weight"] = (c.n_embd,)
    if c.bias:
        result["final_norm.bias"] = (c.n_embd,)
    if not c.tie_embeddings:
        result["head.weight"] = (c.vocab_size, c.n_embd)
    return result


def to_huggingface(weights: Weights, config: ModelConfig) -> Weights:
    """Convert our weights to transformers' names and layouts."""
    c, out = config, Weights()
    if c.architecture == "gpt2":
        out["transformer.wte.weight"] = weights["embedding.weight"]
        out["transformer.wpe.weight"] = weights["position.weight"]
        for i in range(c.n_layer):
            for ours, theirs in _GPT2_BLOCK.items():
                weight = weights[f"blocks.{i}.{ours}.weight"]
                zeros = np.zeros(weight.shape[0], np.float32)
                out[f"transformer.h.{i}.{theirs}.weight"] = weight.T  # transformers' Conv1D is (in, out)
                out[f"transformer.h.{i}.{theirs}.bias"] = weights.get(f"blocks.{i}.{ours}.bias", zeros)
        out["transformer.ln_f.weight"] = weights["final_norm.weight"]
        out["transformer.ln_f.bias"] = weights.get("final_norm.bias", np.zeros(c.n_embd, np.float32))
    else:
        out["model.embed_tokens.weight"] = weights["embedding.weight"]
        q, kv = c.n_head * c.head_dim, c.n_kv_head * c.head_dim
        for i in range(c.n_layer):
            for ours, theirs in _QWEN3_BLOCK.items():
                out[f"model.layers.{i}.{theirs}.weight"] = weights[f"blocks.{i}.{ours}.weight"]
            for name, part in zip(
                "qkv", np.split(weights[f"blocks.{i}.attention.qkv.weight"], [q, q + kv]), strict=True
            ):
                out[f"model.layers.{i}.self_attn.{name}_proj.weight"] = part
            gate_up = np.split(weights[f"blocks.{i}.mlp.up.weight"], 2)
            for name, part in zip(("gate", "up"), gate_up, strict=True):
                out[f"model.layers.{i}.mlp.{name}_proj.weight"] = part
        out["model.norm.weight"] = weights["final_norm.weight"]
    if not c.tie_embeddings:
        out["lm_head.weight"] = weights["head.weight"]
    return {name: np.ascontiguousarray(weight, dtype=np.float32) for name, weight in out.items()}


def from_huggingface(tensors: Weights, config: ModelConfig) -> Weights:
    """Convert transformers' tensors to our names and layouts.

    Raises ModelFolderError, which names the first tensor that is missing or whose shape differs from the configuration.
    """
    base = "transformer." if config.architecture == "gpt2" else "model."
    # A base model saved without its head has the same names without the prefix.
    prefix = base if any(name.startswith(base) for name in tensors) else ""

    def get(name: str, prefix: str = prefix) -> Array:
        try:
            return tensors[prefix + name].astype(np.float32, copy=False)
        except KeyError:
            raise ModelFolderError(f"model.safetensors lacks {prefix + name}.") from None

    c, out = config, Weights()
    if c.architecture == "gpt2":
        out["embedding.weight"] = get("wte.weight")
        out["position.weight"] = get("wpe.weight")
        for i in range(c.n_layer):
            for ours, theirs in _GPT2_BLOCK.items():
                out[f"blocks.{i}.{ours}.weight"] = get(f"h.{i}.{theirs}.weight").T
                out[f"blocks.{i}.{ours}.bias"] = get(f"h.{i}.{theirs}.bias")
        out["final_norm.weight"], out["final_norm.bias"] = get("ln_f.weight"), get("ln_f.bias")
    else:
        out["embedding.weight"] = get("embed_tokens.weight")
        for i in range(c.n_layer):
            for ours, theirs in _QWEN3_BLOCK.items():
                out[f"blocks.{i}.{ours}.weight"] = get(f"layers.{i}.{theirs}.weight")
            qkv = [get(f"layers.{i}.self_attn.{name}_proj.weight") for name in "qkv"]
            out[f"blocks.{i}.attention.qkv.weight"] = np.concatenate(qkv)
            gate_up = [get(f"layers.{i}.mlp.{name}_proj.weight") for name in ("gate", "up")]
            out[f"blocks.{i}.mlp.up.weight"] = np.concatenate(gate_up)
        out["final_norm.weight"] = get("norm.weight")
    if not c.tie_embeddings:
        out["head.weight"] = get("lm_head.weight", prefix="")
    for name, shape in shapes(c).items():
        if name not in out or out[name].shape != shape:
            found = out[name].shape if name in out else "nothing"
            raise ModelFolderError(f"model.safetensors has {found} for {name}; config.json says {shape}.")
    return {name: np.ascontiguousarray(weight) for name, weight in out.items()}


def drop_zero_biases(weights: Weights, config: ModelConfig) -> tuple[Weights, ModelConfig]:
    """Remove biases that are all zero: publishing adds them to a gpt2 without biases, as transformers' always has some.

    Weights with any other bias are returned as they are.
    """
    biases = {name for name in weights if name.endswith(".bias")}
    if not config.bias or any(weights[name].any() for name in biases):
        return weights, config
    return {name: weight for name, weight in weights.items() if name not in biases}, replace(config, bias=False)
