"""One measurement of serve_engine.py, in a process of its own so that thread pools do not interfere.

    python benchmarks/serve_peers.py '{"peer": "gptbox", ...}'     a Job; prints a Result as its last line

Each peer is imported in its own function: llama.cpp may run in another interpreter, which lacks gptbox.
"""

import contextlib
import ctypes
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GREEDY = 40
"""Tokens that each peer generates greedily, to check that it runs the same model."""
MIN_S, MIN_TEXTS, MAX_S = 1.0, 3, 10.0
"""Bounds of a measurement: at least this long and this many texts, but no new text after MAX_S seconds."""

# llama.cpp's names of a block's tensors, and transformers'.
GGUF_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure."""

    peer: str
    folder: str
    """The published model."""
    context: int
    tokens: int
    """Per text."""
    threads: int
    streams: int = 1
    quantized: bool = False
    bias: bool = False
    """Of nanoGPT's model; the others read it from the folder."""
    temperature: float = 0.8
    top_k: int = 200
    nanogpt: str | None = None
    """nanoGPT's checkout."""
    bytes_read: int = 0
    """Bytes of weights read per token of one stream."""


@dataclass(frozen=True, kw_only=True)
class Result:
    tokens_per_s: float
    """Of all streams; the median of the repetitions."""
    repetitions: int
    """Texts, or batches of streams, that were timed."""
    greedy: list[int] | None = None
    """Greedy continuation of the id 0; None if the peer has other weights."""


def measure(job: Job, generate: Callable[[int, int], int], greedy: list[int] | None = None) -> Result:
    """Time `generate(seed, tokens)`, which returns the number of tokens generated, after a short warm-up."""
    generate(0, min(job.tokens, 32))
    speeds: list[float] = []
    began = time.perf_counter()
    while True:
        start = time.perf_counter()
        count = generate(1 + len(speeds), job.tokens)
        end = time.perf_counter()
        speeds.append(count / (end - start))
        if end - began > MAX_S or (len(speeds) >= MIN_TEXTS and end - began > MIN_S):
            return Result(tokens_per_s=float(np.median(speeds)), repetitions=len(speeds), greedy=greedy)


def gptbox(job: Job) -> Result:
    """The engine, in the calling thread and a worker pool."""
    from gptbox.engine.generate import generate
    from gptbox.engine.gpt import GPT
    from gptbox.engine.sampling_params import SamplingParams
    from gptbox.engine.worker_pool import WorkerPool
    from gptbox.models import folder as model_folder

    loaded = model_folder.load(Path(job.folder))
    model = GPT(loaded.config, loaded.weights, job.quantized, loaded.tokenizer.utf8_constraint)
    pool = WorkerPool(job.threads)
    start = np.zeros(1, np.int64)

    def texts(params: list[SamplingParams]) -> list[list[int]]:
        result: list[list[int]] = [[] for _ in params]
        for outputs in generate(model, [start] * len(params), params, pool):
            for text, new in zip(result, outputs, strict=True):
                text.extend(new)
        return result

    def sampled(seed: int, count: int) -> int:
        params = [
            SamplingParams(max_tokens=count, temperature=job.temperature, top_k=job.top_k, seed=1000 * seed + i)
            for i in range(job.streams)
        ]
        return sum(map(len, texts(params)))

    return measure(job, sampled, texts([SamplingParams(max_tokens=GREEDY, temperature=0)])[0])


def nanogpt(job: Job) -> Result:
    """Random weights of the same shape; without a KV cache, sliding its window by one token each time."""
    import torch

    torch.set_num_threads(job.threads)
    sys.path.insert(0, str(job.nanogpt))
    from model import GPT, GPTConfig

    shape = json.loads((Path(job.folder) / "config.json").read_text(encoding="utf-8"))
    assert shape["model_type"] == "gpt2"
    model = GPT(
        GPTConfig(
            block_size=job.context, vocab_size=shape["vocab_size"], n_layer=shape["n_layer"], n_head=shape["n_head"],
            n_embd=shape["n_embd"], dropout=0.0, bias=job.bias,
        )
    ).eval()  # fmt: skip

    def sampled(seed: int, count: int) -> int:
        torch.manual_seed(seed)
        start = torch.zeros((1, 1), dtype=torch.long)
        return int(model.generate(start, count, temperature=job.temperature, top_k=job.top_k).shape[1]) - 1

    return measure(job, sampled)


def transformers(job: Job) -> Result:
    """`generate` with its KV cache; a full context continues from its newest quarter, as in gptbox."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(job.threads)
    model = AutoModelForCausalLM.from_pretrained(job.folder, dtype=torch.float32).eval()
    sampling = {"do_sample": True, "temperature": job.temperature, "top_k": min(job.top_k, model.config.vocab_size)}

    def text(count: int, **sampling: Any) -> list[int]:
        ids = window = torch.zeros((1, 1), dtype=torch.long)
        while (remaining := count + 1 - ids.shape[1]) > 0:
            new = min(remaining, job.context + 1 - window.shape[1])
            generated = model.generate(
                window, attention_mask=torch.ones_like(window), max_new_tokens=new, pad_token_id=0, use_cache=True,
                **sampling,
            )  # fmt: skip
            ids = torch.cat([ids, generated[:, window.shape[1] :]], dim=1)
            window = ids[:, -(job.context // 4) :]
        result: list[int] = ids[0, 1:].tolist()
        return result

    def sampled(seed: int, count: int) -> int:
        torch.manual_seed(seed)
        return len(text(count, **sampling))

    with torch.inference_mode():
        greedy = text(GREEDY, do_sample=False, temperature=None, top_k=None)
        return measure(job, sampled, greedy)


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Float32 tensors by name. The format is the header's length, a JSON header, and the data."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(content[begin + first : begin + end], "<f4").reshape(entry["shape"])
    return tensors


def write_gguf(folder: Path, path: Path) -> None:
    """Convert a published qwen3 model to a float32 GGUF file without a tokenizer: ids in, ids out."""
    import gguf

    shape = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert shape["model_type"] == "qwen3"
    tensors = read_safetensors(folder / "model.safetensors")
    writer = gguf.GGUFWriter(str(path), "qwen3")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(shape["vocab_size"])
    writer.add_tokenizer_model("none")
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_key_length(shape["head_dim"])
    writer.add_value_length(shape["head_dim"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_freq_base(shape["rope_theta"])
    writer.add_tensor("token_embd.weight", tensors["model.embed_tokens.weight"])
    for i in range(shape["num_hidden_layers"]):
        for theirs, ours in GGUF_NAMES.items():
            writer.add_tensor(f"blk.{i}.{theirs}.weight", tensors[f"model.layers.{i}.{ours}.weight"])
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"])
    if not shape["tie_word_embeddings"]:
        writer.add_tensor("output.weight", tensors["lm_head.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def llamacpp(job: Job) -> Result:
    """llama.cpp's C API without llama_cpp.Llama: per token one call of the model and one of the sampler."""
    import llama_cpp as api

    silent = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silent, ctypes.c_void_p(0))
    api.llama_backend_init()
    path = Path(job.folder) / "model.gguf"
    if not path.exists():
        write_gguf(Path(job.folder), path)
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    assert model, f"llama.cpp cannot load {path}"
    settings = api.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = job.context
    settings.n_threads = settings.n_threads_batch = job.threads
    context = api.llama_init_from_model(model, settings)
    assert context, "llama.cpp cannot create a context"
    memory = api.llama_get_memory(context)

    def text(count: int, *samplers: Any) -> list[int]:
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        for sampler in samplers:
            api.llama_sampler_chain_add(chain, sampler)
        api.llama_memory_clear(memory, True)
        ids, num_cached = [0], 0
        new_ids = ids[:]
        while len(ids) <= count:
            if num_cached == job.context:
                api.llama_memory_clear(memory, True)
                num_cached, new_ids = 0, ids[-(job.context // 4) :]
            array = (api.llama_token * len(new_ids))(*new_ids)  # must stay alive: the batch only points at it
            if api.llama_decode(context, api.llama_batch_get_one(array, len(new_ids))) != 0:
                raise RuntimeError("llama_decode failed")
            num_cached += len(new_ids)
            new_ids = [api.llama_sampler_sample(chain, context, -1)]
            ids += new_ids
        api.llama_sampler_free(chain)
        return ids[1:]

    def sampled(seed: int, count: int) -> int:
        samplers = [api.llama_sampler_init_top_k(job.top_k), api.llama_sampler_init_temp(job.temperature)]
        return len(text(count, *samplers, api.llama_sampler_init_dist(seed)))

    return measure(job, sampled, text(GREEDY, api.llama_sampler_init_greedy()))


def floor(job: Job) -> Result:
    """No model: how often per second one thread can read as many bytes as a token's weights have, at best.

    An array that fits a CPU cache is read from the cache, as the weights of a model of that size are.
    """
    array = np.ones(job.bytes_read // 4, np.float32)
    best, repetitions = np.inf, 0
    end = time.perf_counter() + 2 * MIN_S
    while repetitions < 20 or time.perf_counter() < end:
        for read in (np.sum, lambda a: np.dot(a, a)):
            began = time.perf_counter()
            read(array)
            best = min(best, time.perf_counter() - began)
        repetitions += 1
    return Result(tokens_per_s=1 / best, repetitions=repetitions)


PEERS: dict[str, Callable[[Job], Result]] = {
    "gptbox": gptbox,
    "nanogpt": nanogpt,
    "transformers": transformers,
    "llama.cpp": llamacpp,
    "floor": floor,
}


if __name__ == "__main__":
    job = Job(**json.loads(sys.argv[1]))
    with contextlib.redirect_stdout(sys.stderr):  # nanoGPT prints its size
        result = PEERS[job.peer](job)
    print(json.dumps(asdict(result)))
