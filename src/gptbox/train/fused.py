"""The model's operations between the matrix products: fused kernels on the CPU, torch's own elsewhere.

Shapes: B rows, T tokens a row, C the width, H query heads, K key and value heads, D = head_dim, M the MLP's width.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F  # noqa: N812

from gptbox.train import kernels


def _is_for_kernels(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().numpy()


class _AddRMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        y, scale = torch.empty_like(x), x.new_empty(x.shape[0])
        if branch is None:
            total = x
            kernels.rms_norm(_array(x), _array(weight), np.float32(eps), _array(y), _array(scale))
        else:
            total = torch.empty_like(x)
            kernels.add_rms_norm(
                _array(x), _array(branch.contiguous()), _array(weight), np.float32(eps), _array(total), _array(y),
                _array(scale),
            )  # fmt: skip
        ctx.save_for_backward(total, weight, scale)
        ctx.alone = branch is None
        return total, y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        total, weight, scale = ctx.saved_tensors
        grad_total, grad_y = (grad.contiguous() for grad in grads)
        result, grad_weight = torch.empty_like(total), torch.empty_like(weight)
        kernels.rms_norm_backward(
            _array(grad_y), _array(grad_total), _array(total), _array(weight), _array(scale), _array(result),
            _array(grad_weight),
        )  # fmt: skip
        return result, None if ctx.alone else result, grad_weight, None


class _SwiGLU(Function):
    @staticmethod
    def forward(ctx: Any, up: Tensor) -> Tensor:
        y = up.new_empty(up.shape[0], up.shape[1] // 2)
        kernels.swiglu(_array(up), _array(y))
        ctx.save_for_backward(up)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (up,) = ctx.saved_tensors
        grad_up = torch.empty_like(up)
        kernels.swiglu_backward(_array(grads[0].contiguous()), _array(up), _array(grad_up))
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
        kernels.rotary_heads(
            _array(qkv), _array(cos), _array(sin), _array(q_weight), _array(k_weight), np.float32(eps),
            _array(q.flatten(0, 1)), _array(k.flatten(0, 1)), _array(scale),
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
        kernels.rotary_heads_backward(
            _array(grads[0]), _array(grads[1]), _array(qkv), _array(cos), _array(sin), _array(q_weight),
            _array(k_weight),
            _array(scale), _array(grad_qkv), _array(grad_q_weight), _array(grad_k_weight),
        )  # fmt: skip
        grad_qkv[:, -grads[2][0, 0].numel() :] = grads[2].flatten(0, 1).flatten(1)
        return grad_qkv.view(batch, time, -1), grad_q_weight, grad_k_weight, None, None, None, None


class _CrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        grad = torch.empty_like(logits)
        loss = kernels.cross_entropy(_array(logits), _array(targets), _array(grad))
        ctx.save_for_backward(grad)
        return logits.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0], None


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *how: Any) -> Tensor:
        ctx.how = how
        return _drop(x, *how)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _drop(grads[0], *ctx.how), None, None, None


def _drop(x: Tensor, keys: NDArray[np.uint32], threshold: np.uint32, scale: np.float32) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    kernels.drop(_array(x), keys, threshold, scale, _array(y))
    return y


@dataclass(frozen=True)
class Dropout:
    """Srivastava et al., JMLR 15 (2014), drawn from where an element stands and not from a stream.

    So a step drops the same whether its rows are computed in one piece or in many, and again after a resumption.
    """

    probability: float = 0.0
    keys: Any = None
    """A number for each place in the model and each row of the batch, (sites, B): uint32 on the CPU, where NumPy
    computes with it, else an int64 tensor. None without dropout."""

    @classmethod
    def draw(cls, probability: float, seed: int, step: int, rows: int, sites: int) -> "Dropout":
        """For a whole batch."""
        if not probability:
            return cls()
        random = np.random.Philox(key=np.array([seed, step], np.uint64)).random_raw((sites, 1))
        spread = np.arange(rows, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return cls(probability, (random + spread).astype(np.uint32))

    def of_rows(self, begin: int, end: int) -> "Dropout":
        """For a part of the batch."""
        return self if self.keys is None else replace(self, keys=self.keys[:, begin:end])

    def to(self, device: torch.device) -> "Dropout":
        """With the keys where torch computes with them; the CPU keeps NumPy's."""
        if self.keys is None or device.type == "cpu":
            return self
        return replace(self, keys=torch.from_numpy(self.keys.astype(np.int64)).to(device))

    @property
    def threshold(self) -> np.uint32:
        """What is below it, of all 32-bit numbers, is dropped."""
        return np.uint32(self.probability * 2**32)

    @property
    def scale(self) -> np.float32:
        return np.float32(1 / (1 - self.probability))

    def __call__(self, x: Tensor, site: int) -> Tensor:
        """x (B, T, C), some of it zero and the rest the larger; `site` tells the places of a model apart."""
        if self.keys is None:
            return x
        if isinstance(self.keys, np.ndarray) and _is_for_kernels(x):
            y: Tensor = _Dropout.apply(x, self.keys[site], self.threshold, self.scale)  # type: ignore[no-untyped-call]
            return y
        keys = (
            torch.as_tensor(self.keys[site].astype(np.int64)) if isinstance(self.keys, np.ndarray) else self.keys[site]
        )
        h = torch.arange(x[0].numel(), device=x.device) * 0x9E3779B1 + keys[:, None]
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            h = h & 0xFFFFFFFF
            h = (h ^ (h >> shift)) * factor
        kept = (h & 0xFFFFFFFF) >= int(self.probability * 2**32)
        return x * kept.view(x.shape) / (1 - self.probability)


NO_DROPOUT = Dropout()


def sites(n_layer: int) -> int:
    """The places of a model where something is dropped: the embedding, and both branches of each block."""
    return 2 * n_layer + 1


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In the gains' precision, also where the products are in a lower one."""
    return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps)


def add_rms_norm(x: Tensor, branch: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + branch, each (B, T, C), and its norm: Zhang and Sennrich, arXiv 1910.07467."""
    if _is_for_kernels(x):
        added = None if branch is None else branch.flatten(0, 1)
        total, y = _AddRMSNorm.apply(x.flatten(0, 1), added, weight, eps)  # type: ignore[no-untyped-call]
        return total.view(x.shape), y.view(x.shape)
    total = x if branch is None else x + branch
    return total, _rms_norm(total, weight, eps)


def swiglu(up: Tensor) -> Tensor:
    """silu(gate) * value of gate beside value (B, T, 2 M): (B, T, M). Shazeer, arXiv 2002.05202."""
    if _is_for_kernels(up):
        y: Tensor = _SwiGLU.apply(up.flatten(0, 1))  # type: ignore[no-untyped-call]
        return y.view(*up.shape[:-1], -1)
    gate, value = up.chunk(2, dim=-1)
    return F.silu(gate) * value


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (B, T, heads, D) by tables of (T, 1, D / 2), pairing the first half with the second as Qwen does."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rotary_heads(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """A projection (B, T, (H + 2 K) D) as queries (B, T, H, D), keys and values (B, T, K, D).

    Queries and keys have their heads' norm and are rotated by the tables of the T positions, (T, D / 2): Su et al.,
    RoFormer, arXiv 2104.09864; Henry et al., Query-Key Normalization, arXiv 2010.04245.
    """
    if _is_for_kernels(qkv):
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
    """The mean over all tokens of logits (B, T, V) and targets (B, T), in nats."""
    logits, targets = logits.flatten(0, 1), targets.flatten()
    if _is_for_kernels(logits):
        loss: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(logits.float(), targets)
