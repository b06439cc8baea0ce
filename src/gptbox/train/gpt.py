"""The model in torch, for both architectures; the twin of `gptbox.engine.kernels.forward`.

Its state_dict has the names and layouts of `gptbox.weights`. Shapes: B rows, T tokens a row, L positions seen so far,
C = n_embd, H query heads, K key and value heads, D = head_dim, V = vocab_size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  (the field's usual name)

from gptbox.model_config import ModelConfig
from gptbox.train import fused
from gptbox.train.fused import NO_DROPOUT, Dropout
from gptbox.windows import slide

KVCache = list[tuple[Tensor, Tensor]]
"""Keys and values of each layer, (B, K, L, D)."""


class LayerNorm(nn.Module):
    """Ba et al., arXiv 1607.06450, with the bias left out where the model has none."""

    def __init__(self, width: int, bias: bool, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """The sum of the residual stream and a branch's output, and its norm; all (B, T, C)."""
        total = x if branch is None else x + branch
        return total, F.layer_norm(total, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """As LayerNorm's."""
        return fused.add_rms_norm(x, branch, self.weight, self.eps)


def _norm(config: ModelConfig) -> nn.Module:
    if config.architecture == "gpt2":
        return LayerNorm(config.n_embd, config.bias, config.norm_eps)
    return RMSNorm(config.n_embd, config.norm_eps)


def rotary_tables(config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, each (context_length, D / 2): Su et al., RoFormer, arXiv 2104.09864."""
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
        """x (B, T, C) -> (B, T, C). `tables` are the rows of the new positions."""
        c = self.config
        batch, time, _ = x.shape
        qkv = self.qkv(x)
        if tables is None:
            heads = qkv.view(batch, time, c.n_head + 2 * c.n_kv_head, c.head_dim)
            q, k, v = heads.split((c.n_head, c.n_kv_head, c.n_kv_head), dim=2)
        else:
            gains = self.q_norm.weight, self.k_norm.weight
            q, k, v = fused.rotary_heads(qkv, *gains, *tables, c.n_head, c.norm_eps)
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
            is_causal=time > 1,  # one new token may look at everything
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
            up = fused.swiglu(up)
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
        """The residual stream (B, T, C) and what is to be added to it, before this block and after it.

        The sum is left to the norm that comes next, which reads it anyway.
        """
        x, normed = self.attention_norm(x, branch)
        branch = dropout(self.attention(normed, tables, cache, layer), 2 * layer + 1)
        x, normed = self.mlp_norm(x, branch)
        return x, dropout(self.mlp(normed), 2 * layer + 2)


class GPT(nn.Module):
    """A decoder-only transformer."""

    cos: Tensor
    sin: Tensor

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
        """Draw the weights anew.

        gpt2: normal weights of 0.02; what adds to the residual stream is smaller, by its number (GPT-2, section 2.3).

        previous, for rotary positions: blocks that at first add nothing and a head that says nothing (so that the
        first gradients are those of a shallow model), and a first layer whose heads look back 1, 2, ... tokens
        instead of everywhere alike. A head learns that early in any case, after a plateau: Olsson et al., In-context
        Learning and Induction Heads, arXiv 2209.11895.
        """
        c = self.config
        if scheme == "gpt2":
            for name, parameter in self.named_parameters():
                if name.endswith(".bias"):
                    nn.init.zeros_(parameter)
                elif parameter.dim() == 2:
                    adds = name.endswith(("attention.out.weight", "mlp.down.weight"))
                    nn.init.normal_(parameter, std=0.02 * ((2 * c.n_layer) ** -0.5 if adds else 1))
            return
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "mlp.down.weight", "head.weight")):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.5 * parameter.shape[1] ** -0.5)
        # All embeddings share a direction, by which a projection can give every token the same query and key.
        shared, share = torch.randn(c.n_embd).sign(), 0.3
        tokens = torch.randn(c.vocab_size, c.n_embd) * (1 - share**2) ** 0.5 + share * shared
        self.embedding.weight.copy_(0.25 * tokens)
        half = c.head_dim // 2
        frequencies = c.rope_theta ** (-torch.arange(half) / half)
        amplitudes = torch.zeros(half)
        amplitudes[:3] = torch.tensor([0.5, 0.3, 0.2])[:half].sqrt() * c.head_dim**0.5  # the fastest tell places apart
        key = torch.cat((amplitudes, torch.zeros(half)))
        first: nn.Parameter = self.blocks[0].attention.qkv.weight  # type: ignore[union-attr, assignment]
        heads = first.unflatten(0, (-1, c.head_dim))
        for head in range(c.n_head + c.n_kv_head):
            angles = -frequencies * (head + 1)
            query = torch.cat((amplitudes * angles.cos(), amplitudes * angles.sin()))
            heads[head] += torch.outer(query if head < c.n_head else key, shared) / (c.n_embd * share)

    def forward(self, ids: Tensor, cache: KVCache | None = None, dropout: Dropout = NO_DROPOUT) -> Tensor:
        """Logits after each of the ids (B, T): (B, T, V). With a cache they continue, and are added to, what it holds.

        Several new tokens need an empty cache; lengths together stay within the context.
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
        self, ids: list[int], max_tokens: int, *, temperature: float = 1.0, top_k: int = 0, seed: int | None = None
    ) -> list[int]:
        """The ids that follow `ids`; temperature 0 takes the most probable.

        Past the context length the window slides as `gptbox.windows.slide` says.
        """
        context = self.config.context_length
        device = self.embedding.weight.device
        random = torch.Generator(device=device)
        if seed is None:
            random.seed()
        else:
            random.manual_seed(seed)
        history, cache = list(ids), KVCache()
        new = history[-context:]
        for _ in range(max_tokens):
            if cache and cache[0][0].shape[2] == context:
                cache, new = KVCache(), slide(history, context)
            logits = self(torch.tensor([new], device=device), cache)[0, -1]
            if temperature == 0:
                token = int(logits.argmax())
            else:
                logits = logits / temperature
                if 0 < top_k < len(logits):
                    logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
                token = int(torch.multinomial(logits.softmax(-1), 1, generator=random))
            history.append(token)
            new = [token]
        return history[len(ids) :]
