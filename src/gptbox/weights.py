"""The weights' names and layouts: ours, shared by torch and the engine, and Hugging Face's, in published folders.

Ours fuses what is read together (queries, keys and values; SwiGLU's gate and up), because on a CPU one large matrix
product beats three small ones. All matrices are (out, in), as in torch.nn.Linear. B stands for `blocks.I.`:

    embedding.weight (vocab, n_embd)              position.weight (context, n_embd), gpt2 only
    B attention_norm.weight (n_embd,)             B attention.qkv.weight ((n_head + 2 n_kv_head) head_dim, n_embd)
    B attention.q_norm.weight, k_norm (head_dim,) B attention.out.weight (n_embd, n_head head_dim)
    B mlp_norm.weight (n_embd,)                   B mlp.up.weight (intermediate, n_embd); qwen3: 2x, gate above up
    B mlp.down.weight (n_embd, intermediate)      final_norm.weight (n_embd,)
    head.weight (vocab, n_embd) unless tied       and .bias beside each norm and matrix of a block where config.bias
"""

import numpy as np
from numpy.typing import NDArray

from gptbox.errors import ModelFolderError
from gptbox.model_config import ModelConfig

Array = NDArray[np.float32]
Weights = dict[str, Array]

# ours within a block: theirs
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
    """Every weight of a model of this configuration, by our name, with its shape."""
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
    """Our weights under transformers' names and in its layouts."""
    c, out = config, Weights()
    if c.architecture == "gpt2":
        out["transformer.wte.weight"] = weights["embedding.weight"]
        out["transformer.wpe.weight"] = weights["position.weight"]
        for i in range(c.n_layer):
            for ours, theirs in _GPT2_BLOCK.items():
                weight = weights[f"blocks.{i}.{ours}.weight"]
                zeros = np.zeros(weight.shape[0], np.float32)
                out[f"transformer.h.{i}.{theirs}.weight"] = weight.T  # transformers' Conv1D keeps (in, out)
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
    """transformers' tensors under our names and in our layouts.

    Raises ModelFolderError naming the first tensor that is missing or has another shape than the configuration says.
    """
    base = "transformer." if config.architecture == "gpt2" else "model."
    # The base model, saved without its head, has the same names without the prefix.
    prefix = base if any(name.startswith(base) for name in tensors) else ""

    def get(name: str, where: str = prefix) -> Array:
        try:
            return tensors[where + name].astype(np.float32, copy=False)
        except KeyError:
            raise ModelFolderError(f"model.safetensors lacks {where + name}.") from None

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
        out["head.weight"] = get("lm_head.weight", where="")
    for name, shape in shapes(c).items():
        if name not in out or out[name].shape != shape:
            found = out[name].shape if name in out else "nothing"
            raise ModelFolderError(f"model.safetensors has {found} for {name}; config.json says {shape}.")
    return {name: np.ascontiguousarray(weight) for name, weight in out.items()}
