"""The model in torch, for both architectures; its twin without torch is `gptbox.engine.kernels.forward`.

The state_dict has the names and layouts of `gptbox.models.weights`. Shapes: B rows, T tokens per row, L cached
positions, C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's usual name)

from gptbox.models.config import ModelConfig
from gptbox.models.context_window import slide_window
from gptbox.models.weights import Weights
from gptbox.tokenizers.utf8 import Utf8Constraint
from gptbox.train import ops
from gptbox.train.ops import NO_DROPOUT, Dropout

KVCache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (B, K, L, D)."""


class Decoder(Protocol):
    """The logits of one growing sequence."""

    length: int
    """Tokens in the KV cache."""

    def reset(self) -> None:
        """Begin a new sequence."""

    def __call__(self, ids: Sequence[int]) -> Tensor:
        """Append ids; returns the logits (V,) after the last. All ids since `reset` must fit the context."""


class LayerNorm(nn.Module):
    """Layer normalization with optional bias: Ba et al., arXiv 1607.06450."""

    def __init__(self, width: int, bias: bool, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """The residual stream x plus a branch's output, and the norm of that sum; all (B, T, C)."""
        total = x if branch is None else x + branch
        return total, F.layer_norm(total, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Root mean square normalization: Zhang and Sennrich, arXiv 1910.07467."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """As LayerNorm.forward."""
        return ops.add_rms_norm(x, branch, self.weight, self.eps)


def _norm(config: ModelConfig) -> nn.Module:
    if config.architecture == "gpt2":
        return LayerNorm(config.n_embd, config.bias, config.norm_eps)
    return RMSNorm(config.n_embd, config.norm_eps)


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines for all positions, each (context_length, D / 2): Su et al., RoFormer, arXiv 2104.09864."""
    frequencies = config.rope_theta ** (-torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim)
    angles = torch.outer(torch.arange(config.context_length, dtype=torch.float64), frequencies)
    return angles.cos().float(), angles.sin().float()


class Attention(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        heads = config.n_head + 2 * config.n_kv_head
        self.qkv = nn.Linear(config.n_embd, heads * config.head_dim, bias=config.bias)
        self.out = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=config.bias)
        if config.architecture == "qwen3":
            self.q_norm = RMSNorm(config.head_dim, config.norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.norm_eps)

    def forward(self, x: Tensor, tables: tuple[Tensor, Tensor] | None, cache: KVCache | None, layer: int) -> Tensor:
        """x (B, T, C) -> (B, T, C). `tables` are the rotary tables' rows for these T positions; None for gpt2."""
        c = self.config
        batch, time, _ = x.shape
        qkv = self.qkv(x)
        if tables is None:
            heads = qkv.view(batch, time, c.n_head + 2 * c.n_kv_head, c.head_dim)
            q, k, v = heads.split((c.n_head, c.n_kv_head, c.n_kv_head), dim=2)
        else:
            gains = self.q_norm.weight, self.k_norm.weight
            q, k, v = ops.rotary_heads(qkv, *gains, *tables, c.n_head, c.norm_eps)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if cache is not None:
            if len(cache) > layer:
                k, v = torch.cat((cache[layer][0], k), dim=2), torch.cat((cache[layer][1], v), dim=2)
                cache[layer] = k, v
            else:
                cache.append((k, v))
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            is_causal=time > 1,  # a single new token attends to all positions
            enable_gqa=c.n_kv_head != c.n_head,
        )
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, time, c.n_head * c.head_dim))
        return out


class MLP(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.gated = config.architecture == "qwen3"
        self.up = nn.Linear(config.n_embd, config.intermediate_size * (2 if self.gated else 1), bias=config.bias)
        self.down = nn.Linear(config.intermediate_size, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        up = self.up(x)
        if self.gated:
            up = ops.swiglu(up)
        else:
            up = F.gelu(up, approximate="tanh" if self.config.activation == "gelu_new" else "none")
        out: Tensor = self.down(up)
        return out


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config)
        self.mlp_norm = _norm(config)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        branch: Tensor | None,
        tables: tuple[Tensor, Tensor] | None,
        cache: KVCache | None,
        layer: int,
        dropout: Dropout,
    ) -> tuple[Tensor, Tensor]:
        """(x, branch) -> (x, branch): the residual stream (B, T, C), and a branch's output not yet added to it.

        The addition is left to the next norm, which reads x anyway.
        """
        x, normed = self.attention_norm(x, branch)
        branch = dropout(self.attention(normed, tables, cache, layer), 2 * layer + 1)
        x, normed = self.mlp_norm(x, branch)
        return x, dropout(self.mlp(normed), 2 * layer + 2)


class GPT(nn.Module):
    """A decoder-only transformer: GPT-2 or Qwen3, by `config.architecture`."""

    cos: Tensor
    sin: Tensor
    """The rotary tables, each (context_length, D / 2); qwen3 only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.architecture == "gpt2":
            self.position = nn.Embedding(config.context_length, config.n_embd)
        else:
            for name, table in zip(("cos", "sin"), rotary_tables(config), strict=True):
                self.register_buffer(name, table, persistent=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = _norm(config)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.initialize()

    @torch.no_grad()
    def initialize(self, scheme: str = "gpt2") -> None:
        """Initialize all weights.

        gpt2: normal with std 0.02; projections into the residual stream are scaled by 1 / sqrt(2 n_layer) (GPT-2,
        section 2.3).

        previous (previous-token heads), for rotary positions: the output projections and the head are zero, so that
        the first gradients are those of a shallow model, and head h of the first layer attends to the token h + 1
        positions back instead of uniformly. Training forms such heads anyway, after a plateau: Olsson et al.,
        In-context Learning and Induction Heads, arXiv 2209.11895.
        """
        c = self.config
        if scheme == "gpt2":
            for name, parameter in self.named_parameters():
                if name.endswith(".bias"):
                    nn.init.zeros_(parameter)
                elif parameter.dim() == 2:
                    is_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                    nn.init.normal_(parameter, std=0.02 * ((2 * c.n_layer) ** -0.5 if is_residual else 1))
            return
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight", "head.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.5 * parameter.shape[1] ** -0.5)
        # All embeddings share a direction, from which a projection makes the same query and key for every token.
        direction, weight = torch.randn(c.n_embd).sign(), 0.3
        tokens = torch.randn(c.vocab_size, c.n_embd) * (1 - weight**2) ** 0.5 + weight * direction
        self.embedding.weight.copy_(0.25 * tokens)
        half = c.head_dim // 2
        frequencies = c.rope_theta ** (-torch.arange(half) / half)
        amplitudes = torch.zeros(half)
        # Only the highest frequencies, which resolve neighbouring positions.
        amplitudes[:3] = torch.tensor([0.5, 0.3, 0.2])[:half].sqrt() * c.head_dim**0.5
        key = torch.cat((amplitudes, torch.zeros(half)))
        qkv: nn.Parameter = self.blocks[0].attention.qkv.weight  # type: ignore[union-attr, assignment]
        heads = qkv.unflatten(0, (-1, c.head_dim))
        for head in range(c.n_head + c.n_kv_head):
            angles = -frequencies * (head + 1)
            query = torch.cat((amplitudes * angles.cos(), amplitudes * angles.sin()))
            heads[head] += torch.outer(query if head < c.n_head else key, direction) / (c.n_embd * weight)

    def load_weights(self, weights: Weights) -> None:
        """Copy the weights of a published model with the same configuration; see `gptbox.models.weights`."""
        self.load_state_dict({name: torch.from_numpy(weight) for name, weight in weights.items()})

    def forward(self, ids: Tensor, cache: KVCache | None = None, dropout: Dropout = NO_DROPOUT) -> Tensor:
        """ids (B, T) -> logits (B, T, V). With a cache, the ids continue the cached ones and are added to it.

        T > 1 needs an empty cache; cached and new ids together must fit the context.
        """
        start = cache[0][0].shape[2] if cache else 0
        end = start + ids.shape[1]
        x = self.embedding(ids)
        tables = None
        if self.config.architecture == "gpt2":
            x = x + self.position.weight[start:end]
        else:
            tables = self.cos[start:end], self.sin[start:end]
        x, branch = dropout(x, 0), None
        for layer, block in enumerate(self.blocks):
            x, branch = block(x, branch, tables, cache, layer, dropout)
        _, normed = self.final_norm(x, branch)
        head = self.embedding.weight if self.config.tie_embeddings else self.head.weight
        return F.linear(normed, head)

    @torch.inference_mode()
    def generate(
        self,
        ids: list[int],
        max_tokens: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        seed: int | None = None,
        decoder: Decoder | None = None,
        constraint: Utf8Constraint | None = None,
        until: Callable[[int], bool] | None = None,
    ) -> list[int]:
        """Sample `max_tokens` ids that continue `ids`; temperature 0 is greedy, top_k 0 keeps all tokens.

        `decoder` is a new one for this model, by default one that calls `forward` with a KV cache. Past the context
        length the window slides; see `gptbox.models.context_window.slide_window`. `constraint` says which tokens are
        sampled: by default all. `until` is called with each new id; the first for which it returns true is the last.
        """
        context = self.config.context_length
        device = self.embedding.weight.device
        random = torch.Generator(device=device)
        if seed is None:
            random.seed()
        else:
            random.manual_seed(seed)
        decoder = decoder or _TorchDecoder(self)
        state, transitions = 0, None
        if constraint is not None:
            state = constraint.state_after(ids)
            transitions = torch.from_numpy(constraint.padded(self.config.vocab_size)).to(device)
        history = list(ids)
        new_ids = history[-context:]
        for _ in range(max_tokens):
            if decoder.length == context:
                decoder.reset()
                new_ids = slide_window(history, context)
            logits = decoder(new_ids)
            if transitions is not None:
                logits = logits.masked_fill(transitions[state] < 0, -torch.inf)
            if temperature == 0:
                token = int(logits.argmax())
            else:
                logits = logits / temperature
                if 0 < top_k < len(logits):
                    logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
                token = int(torch.multinomial(logits.softmax(-1), 1, generator=random))
            if transitions is not None:
                state = int(transitions[state, token])
            history.append(token)
            if until is not None and until(token):
                break
            new_ids = [token]
        return history[len(ids) :]


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require gradients, in the order of `model.parameters()`."""
    return [p for p in model.parameters() if p.requires_grad]


class _TorchDecoder:
    """A Decoder for any architecture and device."""

    def __init__(self, model: GPT) -> None:
        self._model, self._device = model, model.embedding.weight.device
        self._cache = KVCache()
        self.length = 0

    def reset(self) -> None:
        self._cache, self.length = KVCache(), 0

    def __call__(self, ids: Sequence[int]) -> Tensor:
        self.length += len(ids)
        logits: Tensor = self._model(torch.tensor([ids], device=self._device), self._cache)
        return logits[0, -1]
