"""The model's operations between the matrix products: fused kernels on a CPU, torch's operations elsewhere.

Shapes: B rows, T tokens per row, C the width, H query heads, K key and value heads, D = head_dim, M the MLP's width.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F  # noqa: N812

from gptbox.train.kernels import layers


def _uses_kernels(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _numpy(x: Tensor) -> NDArray[Any]:
    return x.detach().numpy()


class _AddRMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.shape[0])
        if branch is None:
            total = x
            layers.rms_norm(_numpy(x), _numpy(weight), np.float32(eps), _numpy(y), _numpy(scale))
        else:
            total = torch.empty_like(x)
            layers.add_rms_norm(
                _numpy(x), _numpy(branch.contiguous()), _numpy(weight), np.float32(eps), _numpy(total), _numpy(y),
                _numpy(scale),
            )  # fmt: skip
        ctx.save_for_backward(total, weight, scale)
        ctx.without_branch = branch is None
        return total, y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        total, weight, scale = ctx.saved_tensors
        grad_total, grad_y = (grad.contiguous() for grad in grads)
        result, grad_weight = torch.empty_like(total), torch.empty_like(weight)
        layers.rms_norm_backward(
            _numpy(grad_y), _numpy(grad_total), _numpy(total), _numpy(weight), _numpy(scale), _numpy(result),
            _numpy(grad_weight),
        )  # fmt: skip
        return result, None if ctx.without_branch else result, grad_weight, None


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, up: Tensor) -> Tensor:
        y = up.new_empty(up.shape[0], up.shape[1] // 2)
        layers.swiglu(_numpy(up), _numpy(y))
        ctx.save_for_backward(up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (up,) = ctx.saved_tensors
        grad_up = torch.empty_like(up)
        layers.swiglu_backward(_numpy(grads[0].contiguous()), _numpy(up), _numpy(grad_up))
        return grad_up


class _RotaryHeads(Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, time, width = qkv.shape
        head_dim = 2 * cos.shape[-1]
        kv_heads = (width // head_dim - heads) // 2
        qkv = qkv.reshape(-1, width)
        q = qkv.new_empty(batch, time, heads, head_dim)
        k = qkv.new_empty(batch, time, kv_heads, head_dim)
        scale = qkv.new_empty(batch * time, heads + kv_heads)
        layers.rotary_heads(
            _numpy(qkv), _numpy(cos), _numpy(sin), _numpy(q_weight), _numpy(k_weight), np.float32(eps),
            _numpy(q.flatten(0, 1)), _numpy(k.flatten(0, 1)), _numpy(scale),
        )  # fmt: skip
        ctx.save_for_backward(qkv, q_weight, k_weight, cos, sin, scale)
        v = qkv.view(batch, time, -1, head_dim)[:, :, heads + kv_heads :]
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        qkv, q_weight, k_weight, cos, sin, scale = ctx.saved_tensors
        batch, time = grads[0].shape[:2]
        grad_qkv, grad_q_weight = torch.empty_like(qkv), torch.empty_like(q_weight)
        grad_k_weight = torch.empty_like(k_weight)
        layers.rotary_heads_backward(
            _numpy(grads[0]), _numpy(grads[1]), _numpy(qkv), _numpy(cos), _numpy(sin), _numpy(q_weight),
            _numpy(k_weight),
            _numpy(scale), _numpy(grad_qkv), _numpy(grad_q_weight), _numpy(grad_k_weight),
        )  # fmt: skip
        grad_qkv[:, -grads[2][0, 0].numel() :] = grads[2].flatten(0, 1).flatten(1)
        return grad_qkv.view(batch, time, -1), grad_q_weight, grad_k_weight, None, None, None, None


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        grad = torch.empty_like(logits)
        loss = layers.cross_entropy(_numpy(logits), _numpy(targets), _numpy(grad))
        ctx.save_for_backward(grad)
        return logits.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *dropout: Any) -> Tensor:
        ctx.dropout = dropout
        return _apply_dropout(x, *dropout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _apply_dropout(grads[0], *ctx.dropout), None, None, None


def _apply_dropout(x: Tensor, keys: NDArray[np.uint32], threshold: np.uint32, scale: np.float32) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    layers.dropout_rows(_numpy(x), keys, threshold, scale, _numpy(y))
    return y


@dataclass(frozen=True)
class Dropout:
    """Dropout (Srivastava et al., JMLR 15, 2014) whose mask is a hash of the element's position, not a random stream.

    A step drops the same elements however its rows are split, and also when it is repeated after a resume.
    """

    probability: float = 0.0
    keys: Any = None
    """Hash keys per site in the model and row of the batch, (sites, B): a uint32 array on a CPU, else an int64 tensor;
    None without dropout."""

    @classmethod
    def draw(cls, probability: float, seed: int, step: int, rows: int, sites: int) -> "Dropout":
        """The dropout of one step, with keys for `sites` places in the model (`dropout_sites`) and `rows` rows."""
        if not probability:
            return cls()
        random = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw((sites, 1))
        row_offsets = np.arange(rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return cls(probability, (random + row_offsets).astype(np.uint32))

    def of_rows(self, begin: int, end: int) -> "Dropout":
        """The dropout of rows `begin` to `end` of the batch."""
        return self if self.keys is None else replace(self, keys=self.keys[:, begin:end])

    def to(self, device: torch.device) -> "Dropout":
        """A copy with the keys on a device; on the CPU they stay a NumPy array."""
        if self.keys is None or device.type == "cpu":
            return self
        return replace(self, keys=torch.from_numpy(self.keys.astype(np.int64)).to(device))

    @property
    def threshold(self) -> np.uint32:
        """Elements whose 32-bit hash is below it are dropped."""
        return np.uint32(self.probability * 2**32)

    @property
    def scale(self) -> np.float32:
        """Factor of the elements that are kept."""
        return np.float32(1 / (1 - self.probability))

    def __call__(self, x: Tensor, site: int) -> Tensor:
        """Apply to x (B, T, C) at one of the model's sites; see `dropout_sites`."""
        if self.keys is None:
            return x
        if isinstance(self.keys, np.ndarray) and _uses_kernels(x):
            y: Tensor = _Dropout.apply(x, self.keys[site], self.threshold, self.scale)  # type: ignore[no-untyped-call]
            return y
        keys = (
            torch.as_tensor(self.keys[site].astype(np.int64)) if isinstance(self.keys, np.ndarray) else self.keys[site]
        )
        h = torch.arange(x[0].numel(), device=x.device) * 0x9E3779B1 + keys[:, None]
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            h = h & 0xFFFFFFFF
            h = (h ^ (h >> shift)) * factor
        mask = (h & 0xFFFFFFFF) >= int(self.probability * 2**32)
        return x * mask.view(x.shape) / (1 - self.probability)


NO_DROPOUT = Dropout()


def dropout_sites(n_layer: int) -> int:
    """Number of places where a model applies dropout: the embedding (site 0), and two branches per block."""
    return 2 * n_layer + 1


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in the precision of the gains, even under autocast."""
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps)


def add_rms_norm(x: Tensor, branch: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + branch, each (B, T, C), and the RMSNorm of that sum: Zhang and Sennrich, arXiv 1910.07467."""
    if _uses_kernels(x):
        flat_branch = None if branch is None else branch.flatten(0, 1)
        total, y = _AddRMSNorm.apply(x.flatten(0, 1), flat_branch, weight, eps)  # type: ignore[no-untyped-call]
        return total.view(x.shape), y.view(x.shape)
    total = x if branch is None else x + branch
    return total, _rms_norm(total, weight, eps)


def swiglu(up: Tensor) -> Tensor:
    """silu(gate) * value (B, T, M), from gate and value concatenated (B, T, 2 M): Shazeer, arXiv 2002.05202."""
    if _uses_kernels(up):
        y: Tensor = _SwiGLU.apply(up.flatten(0, 1))  # type: ignore[no-untyped-call]
        return y.view(*up.shape[:-1], -1)
    gate, value = up.chunk(2, dim=-1)
    return F.silu(gate) * value


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate (B, T, heads, D) by tables (T, 1, D / 2), pairing the first half of D with the second as Qwen does."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rotary_heads(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Split a projection (B, T, (H + 2 K) D) into queries (B, T, H, D), keys and values (B, T, K, D).

    Queries and keys are normalized per head (Henry et al., Query-Key Normalization, arXiv 2010.04245) and rotated by
    the tables of the T positions, (T, D / 2) (Su et al., RoFormer, arXiv 2104.09864).
    """
    if _uses_kernels(qkv):
        q, k, v = _RotaryHeads.apply(qkv, q_weight, k_weight, cos, sin, heads, eps)  # type: ignore[no-untyped-call]
        return q, k, v
    head_dim = 2 * cos.shape[-1]
    parts = qkv.unflatten(-1, (-1, head_dim))
    kv_heads = (parts.shape[2] - heads) // 2
    q, k, v = parts.split((heads, kv_heads, kv_heads), dim=2)
    cos, sin = cos[:, None], sin[:, None]
    q = rotate(_rms_norm(q, q_weight, eps), cos, sin)
    k = rotate(_rms_norm(k, k_weight, eps), cos, sin)
    return q, k, v


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats of logits (B, T, V) and targets (B, T) over all tokens."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    if _uses_kernels(logits):
        loss: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(logits.float(), targets)
