"""The model configuration: the hyperparameters that determine every weight's shape, and their Hugging Face names.

Two architectures, both native to transformers and llama.cpp:

* `gpt2`: LayerNorm, learned positions, GELU, embeddings tied to the output (Radford et al. 2019; nanoGPT).
* `qwen3`: RMSNorm, rotary positions, RMS-normalised queries and keys, SwiGLU, no bias (Qwen3 technical report, 2025).
"""

from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from gptbox.errors import ModelFolderError

Architecture = Literal["gpt2", "qwen3"]
Activation = Literal["gelu", "gelu_new", "silu"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Hyperparameters of a model. Raises ModelFolderError if they are invalid."""

    architecture: Architecture
    vocab_size: int
    context_length: int
    """Maximum number of tokens that attention sees at once."""
    n_layer: int
    n_head: int
    n_embd: int
    """Width of the residual stream."""
    n_kv_head: int = 0
    """Key and value heads, shared by groups of query heads; 0 means n_head."""
    head_dim: int = 0
    """Width of each head; 0 means n_embd / n_head."""
    intermediate_size: int = 0
    """Width of the MLP's hidden layer; 0 means 4 n_embd."""
    activation: Activation = "gelu"
    """`gelu` (exact), `gelu_new` (the tanh approximation of OpenAI's GPT-2) or `silu` (the gate of SwiGLU)."""
    norm_eps: float = 1e-5
    """Added to the variance, or mean square, before its square root."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies; `qwen3` only."""
    tie_embeddings: bool = True
    """The output layer shares its weight with the token embedding."""
    bias: bool = False
    """Linear layers and LayerNorms have biases; `gpt2` only."""

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise ModelFolderError(f"architecture {self.architecture!r} is not one of {get_args(Architecture)}.")
        if self.activation not in get_args(Activation):
            raise ModelFolderError(f"activation {self.activation!r} is not one of {get_args(Activation)}.")
        set_field = object.__setattr__  # the dataclass is frozen
        if not self.n_kv_head:
            set_field(self, "n_kv_head", self.n_head)
        if not self.head_dim and self.n_head:
            if self.n_embd % self.n_head:
                raise ModelFolderError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}.")
            set_field(self, "head_dim", self.n_embd // self.n_head)
        if not self.intermediate_size:
            set_field(self, "intermediate_size", 4 * self.n_embd)
        sizes = ("vocab_size", "context_length", "n_layer", "n_head", "n_embd", "n_kv_head", "head_dim")
        for name in (*sizes, "intermediate_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ModelFolderError(f"{name} is {getattr(self, name)!r}; it must be a whole number above 0.")
        if self.n_head % self.n_kv_head:
            raise ModelFolderError(f"n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}.")
        if self.architecture == "gpt2":
            if self.n_kv_head != self.n_head or self.head_dim * self.n_head != self.n_embd:
                raise ModelFolderError("gpt2 needs n_kv_head equal to n_head and n_head x head_dim equal to n_embd.")
            if self.activation == "silu":
                raise ModelFolderError("gpt2 needs the activation gelu or gelu_new, not silu.")
        elif self.head_dim % 2:
            raise ModelFolderError(f"head_dim {self.head_dim} is odd; rotary positions rotate pairs.")
        elif self.activation != "silu" or self.bias:
            raise ModelFolderError("qwen3 needs the activation silu and no bias.")

    @property
    def parameters(self) -> int:
        """Number of trained parameters; a tied embedding counts once."""
        qkv = (self.n_head + 2 * self.n_kv_head) * self.head_dim
        attention = self.n_embd * (qkv + self.n_head * self.head_dim)
        if self.architecture == "gpt2":
            mlp = 2 * self.n_embd * self.intermediate_size
            norms = 2 * self.n_embd
            biases = qkv + self.intermediate_size + 4 * self.n_embd if self.bias else 0
            positions = self.context_length * self.n_embd
            final_norm = self.n_embd * (2 if self.bias else 1)
        else:
            mlp = 3 * self.n_embd * self.intermediate_size
            norms = 2 * self.n_embd + 2 * self.head_dim
            biases = positions = 0
            final_norm = self.n_embd
        embeddings = self.vocab_size * self.n_embd * (1 if self.tie_embeddings else 2)
        return embeddings + positions + self.n_layer * (attention + mlp + norms + biases) + final_norm

    def to_huggingface(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers loads."""
        common: dict[str, Any] = {
            "model_type": self.architecture,
            "vocab_size": self.vocab_size,
            "tie_word_embeddings": self.tie_embeddings,
            "use_cache": True,
            "dtype": "float32",
            # No special tokens, unless the tokenizer has some; by default transformers assumes GPT-2's or Qwen's.
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
        if self.architecture == "gpt2":
            return common | {
                "architectures": ["GPT2LMHeadModel"],
                "n_positions": self.context_length,
                "n_embd": self.n_embd,
                "n_layer": self.n_layer,
                "n_head": self.n_head,
                "n_inner": self.intermediate_size,
                "activation_function": self.activation,
                "layer_norm_epsilon": self.norm_eps,
                "attn_pdrop": 0.0,
                "embd_pdrop": 0.0,
                "resid_pdrop": 0.0,
            }
        return common | {
            "architectures": ["Qwen3ForCausalLM"],
            "max_position_embeddings": self.context_length,
            "hidden_size": self.n_embd,
            "num_hidden_layers": self.n_layer,
            "num_attention_heads": self.n_head,
            "num_key_value_heads": self.n_kv_head,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.activation,
            "rms_norm_eps": self.norm_eps,
            # transformers 4 and llama.cpp read rope_theta, transformers 5 rope_parameters.
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "attention_bias": False,
            "use_sliding_window": False,
        }

    @classmethod
    def from_huggingface(cls, config: dict[str, Any]) -> Self:
        """Read a `config.json`.

        Raises ModelFolderError if a value is missing or invalid, or if gptbox does not support the model.
        """
        try:
            if config.get("model_type") == "gpt2":
                return cls(
                    architecture="gpt2",
                    vocab_size=config["vocab_size"],
                    context_length=config["n_positions"],
                    n_layer=config["n_layer"],
                    n_head=config["n_head"],
                    n_embd=config["n_embd"],
                    intermediate_size=config.get("n_inner") or 0,
                    activation=config.get("activation_function", "gelu_new"),
                    norm_eps=config.get("layer_norm_epsilon", 1e-5),
                    tie_embeddings=config.get("tie_word_embeddings", True),
                    bias=True,  # transformers' GPT-2 always has biases; a model without them is published with zeros
                )
            if config.get("model_type") == "qwen3":
                if config.get("use_sliding_window") or config.get("attention_bias"):
                    raise ModelFolderError("config.json asks for a sliding window or attention biases: not supported.")
                rope = config.get("rope_parameters") or {}
                if rope.get("rope_type", "default") != "default" or config.get("rope_scaling"):
                    raise ModelFolderError("config.json asks for scaled rotary positions: not supported.")
                return cls(
                    architecture="qwen3",
                    vocab_size=config["vocab_size"],
                    context_length=config["max_position_embeddings"],
                    n_layer=config["num_hidden_layers"],
                    n_head=config["num_attention_heads"],
                    n_embd=config["hidden_size"],
                    n_kv_head=config.get("num_key_value_heads") or 0,
                    head_dim=config.get("head_dim") or 0,
                    intermediate_size=config["intermediate_size"],
                    activation=config.get("hidden_act", "silu"),
                    norm_eps=config.get("rms_norm_eps", 1e-6),
                    rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
                    tie_embeddings=config.get("tie_word_embeddings", False),
                )
        except KeyError as missing:
            raise ModelFolderError(f"config.json lacks {missing}.") from None
        model_type = config.get("model_type")
        raise ModelFolderError(f"config.json has model_type {model_type!r}; gptbox runs {get_args(Architecture)}.")
