"""One measurement of serve_engine.py, in a process of its own, so that no thread pool meets another.

    python benchmarks/serve_peers.py '{"peer": "gptbox", ...}'     a Job; prints a Result as its last line

Each peer is imported by its own function: llama.cpp may be in another interpreter, which has nothing of gptbox.
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
"""Tokens that each peer generates greedily, to see that it runs the same model."""
LEAST_S, LEAST_TEXTS, MOST_S = 1.0, 3, 10.0
"""How long, and how often, the same is done again within one measurement."""

# llama.cpp's names within a block: transformers'
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
    """A published model."""
    context: int
    tokens: int
    """Of each text."""
    threads: int
    streams: int = 1
    quantized: bool = False
    bias: bool = False
    """Of nanoGPT's model; what is in the folder says it for the others."""
    temperature: float = 0.8
    top_k: int = 200
    nanogpt: str | None = None
    """nanoGPT's checkout."""
    bytes_read: int = 0
    """Of weights, for one token of one stream."""


@dataclass(frozen=True, kw_only=True)
class Result:
    tokens_per_s: float
    """Of all streams together: the median of the repetitions."""
    repetitions: int
    greedy: list[int] | None = None
    """What follows the id 0 greedily; None where the peer has weights of its own."""


def measure(job: Job, generate: Callable[[int, int], int], greedy: list[int] | None = None) -> Result:
    """Time `generate(seed, tokens)`, which returns how many tokens it made, after a shorter text to warm up."""
    generate(0, min(job.tokens, 32))
    speeds: list[float] = []
    began = time.perf_counter()
    while True:
        start = time.perf_counter()
        count = generate(1 + len(speeds), job.tokens)
        end = time.perf_counter()
        speeds.append(count / (end - start))
        if end - began > MOST_S or (len(speeds) >= LEAST_TEXTS and end - began > LEAST_S):
            return Result(tokens_per_s=float(np.median(speeds)), repetitions=len(speeds), greedy=greedy)


def gptbox(job: Job) -> Result:
    from gptbox import model_folder
    from gptbox.engine.batch import generate
    from gptbox.engine.gpt import GPT
    from gptbox.engine.sampling import SamplingParams
    from gptbox.engine.team import Team

    loaded = model_folder.load(Path(job.folder))
    model, team = GPT(loaded.config, loaded.weights, quantize=job.quantized), Team(job.threads)
    start = np.zeros(1, np.int64)

    def texts(params: list[SamplingParams]) -> list[list[int]]:
        made: list[list[int]] = [[] for _ in params]
        for news in generate(model, [start] * len(params), params, team):
            for text, new in zip(made, news, strict=True):
                text.extend(new)
        return made

    def sampled(seed: int, count: int) -> int:
        params = [
            SamplingParams(max_tokens=count, temperature=job.temperature, top_k=job.top_k, seed=1000 * seed + i)
            for i in range(job.streams)
        ]
        return sum(map(len, texts(params)))

    return measure(job, sampled, texts([SamplingParams(max_tokens=GREEDY, temperature=0)])[0])


def nanogpt(job: Job) -> Result:
    """Its own random weights, of the same shape; it has no cache, and slides its window by one token each time."""
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
    """`generate` with its cache; a full window goes on from its newest quarter, as gptbox's does."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(job.threads)
    model = AutoModelForCausalLM.from_pretrained(job.folder, dtype=torch.float32).eval()
    rules = {"do_sample": True, "temperature": job.temperature, "top_k": min(job.top_k, model.config.vocab_size)}

    def text(count: int, **rules: Any) -> list[int]:
        ids = window = torch.zeros((1, 1), dtype=torch.long)
        while (left := count + 1 - ids.shape[1]) > 0:
            new = min(left, job.context + 1 - window.shape[1])
            made = model.generate(
                window, attention_mask=torch.ones_like(window), max_new_tokens=new, pad_token_id=0, use_cache=True,
                **rules,
            )  # fmt: skip
            ids = torch.cat([ids, made[:, window.shape[1] :]], dim=1)
            window = ids[:, -(job.context // 4) :]
        found: list[int] = ids[0, 1:].tolist()
        return found

    def sampled(seed: int, count: int) -> int:
        torch.manual_seed(seed)
        return len(text(count, **rules))

    with torch.inference_mode():
        greedy = text(GREEDY, do_sample=False, temperature=None, top_k=None)
        return measure(job, sampled, greedy)


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Float32 tensors by name. The format is a length, a JSON header, and the numbers."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    assert {entry["dtype"] for entry in header.values()} == {"F32"}
    found = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        found[name] = np.frombuffer(content[begin + first : begin + end], "<f4").reshape(entry["shape"])
    return found


def write_gguf(folder: Path, path: Path) -> None:
    """A published qwen3 model as one float32 file, without a tokenizer: ids in, ids out."""
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
    """Its own C functions, one call a token for the model and one for the sampler; nothing of llama_cpp.Llama."""
    import llama_cpp as api

    quiet = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(quiet, ctypes.c_void_p(0))
    api.llama_backend_init()
    path = Path(job.folder) / "model.gguf"
    if not path.exists():
        write_gguf(Path(job.folder), path)
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    assert model, f"llama.cpp does not load {path}"
    settings = api.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = job.context
    settings.n_threads = settings.n_threads_batch = job.threads
    context = api.llama_init_from_model(model, settings)
    assert context, "llama.cpp makes no context"
    memory = api.llama_get_memory(context)

    def text(count: int, *rules: Any) -> list[int]:
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
        for rule in rules:
            api.llama_sampler_chain_add(chain, rule)
        api.llama_memory_clear(memory, True)
        ids, held = [0], 0
        fresh = ids[:]
        while len(ids) <= count:
            if held == job.context:
                api.llama_memory_clear(memory, True)
                held, fresh = 0, ids[-(job.context // 4) :]
            array = (api.llama_token * len(fresh))(*fresh)  # the batch only points at it
            if api.llama_decode(context, api.llama_batch_get_one(array, len(fresh))) != 0:
                raise RuntimeError("llama_decode failed")
            held += len(fresh)
            fresh = [api.llama_sampler_sample(chain, context, -1)]
            ids += fresh
        api.llama_sampler_free(chain)
        return ids[1:]

    def sampled(seed: int, count: int) -> int:
        rules = [api.llama_sampler_init_top_k(job.top_k), api.llama_sampler_init_temp(job.temperature)]
        return len(text(count, *rules, api.llama_sampler_init_dist(seed)))

    return measure(job, sampled, text(GREEDY, api.llama_sampler_init_greedy()))


def floor(job: Job) -> Result:
    """No model: how often a second one thread reads as many bytes as a token's weights are, at best.

    What fits a cache is read from the cache here, as it is in a model of that size.
    """
    array = np.ones(job.bytes_read // 4, np.float32)
    best, repetitions = np.inf, 0
    end = time.perf_counter() + 2 * LEAST_S
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
    asked = Job(**json.loads(sys.argv[1]))
    with contextlib.redirect_stdout(sys.stderr):  # nanoGPT tells its size
        result = PEERS[asked.peer](asked)
    print(json.dumps(asdict(result)))
