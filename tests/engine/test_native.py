import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gptbox.engine import native
from gptbox.engine.kernels import build
from gptbox.engine.object_file import processor
from gptbox.errors import EngineError

SCRIPT = """
import sys
import numpy as np
from gptbox.engine.generate import generate
from gptbox.engine.gpt import GPT
from gptbox.engine.kv_cache import KVCache
from gptbox.engine.sampling_params import SamplingParams
from gptbox.engine import native
from gptbox.models.config import ModelConfig
from gptbox.models.weights import shapes
config = ModelConfig(architecture="qwen3", vocab_size=65, context_length=48, n_layer=2, n_head=2, n_embd=64,
                     activation="silu")
random = np.random.default_rng(5)
model = GPT(config, {name: random.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes(config).items()})
logits = model.forward(random.integers(0, 65, (3, 40)), KVCache(config, 3))
params = [SamplingParams(max_tokens=100, seed=i, top_p=0.9, top_k=40, logprobs=2) for i in range(5)]
texts = [[] for _ in params]
for outputs in generate(model, [np.array([1, 2, 3])] * 5, params):
    for text, new in zip(texts, outputs):
        text += new
np.save(sys.argv[1], logits)
print(f"numba {'numba' in sys.modules}, llvmlite {'llvmlite' in sys.modules}: {texts}")
"""


def run_script(tmp_path: Path, folder: Path | None) -> tuple[str, np.ndarray]:
    """Output and logits of SCRIPT in a fresh process, with the libraries in `folder` or the object file."""
    environment = os.environ | ({"GPTBOX_LIBRARIES": str(folder)} if folder else {})
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "logits.npy")], env=environment, check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    return finished.stdout, np.load(tmp_path / "logits.npy")


USABLE = [name for name, required in native.GENERATIONS.items() if required <= processor()]
"""Generations whose library this processor can run, best first."""


@pytest.fixture(scope="module")
def best_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library for this processor's generation."""
    if shutil.which("ld") is None:
        pytest.skip("there is no linker here (binutils)")
    folder = tmp_path_factory.mktemp("libraries")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "GENERATIONS", {USABLE[0]: native.GENERATIONS[USABLE[0]]})
        build.build(folder)
    return folder


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.acceptance)], ids=["best", "every"])
def test_libraries_agree_with_the_object_file_and_need_no_numba(
    every: bool, best_library: Path, tmp_path: Path
) -> None:
    libraries = tmp_path / "libraries" if every else best_library
    if every:
        build.build(libraries)
    compiled, logits = run_script(tmp_path, None)
    assert compiled.startswith("numba False, llvmlite True")
    for name in USABLE if every else USABLE[:1]:
        path = libraries / f"gptbox-{name}.so"
        only = tmp_path / path.stem
        only.mkdir()
        (only / path.name).symlink_to(path)
        output, found = run_script(tmp_path, only)
        assert output.startswith("numba False, llvmlite False")
        # Without fused multiply-add the last bits differ.
        np.testing.assert_allclose(found, logits, atol=1e-5)
        if name == USABLE[0]:
            assert output.partition("[")[2] == compiled.partition("[")[2]


def test_the_best_library_that_the_processor_can_run_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"):
        (tmp_path / f"gptbox-{name}.so").touch()
    for features, expected in (
        ({"sse4_2"}, "x86-64-v2"),
        ({"sse4_2", "avx2", "fma", "bmi2", "f16c"}, "x86-64-v3"),
        (set().union(*native.GENERATIONS.values()), "x86-64-v4"),
    ):
        monkeypatch.setattr(native, "processor", lambda features=features: features)
        found = native.find_library(tmp_path)
        assert found is not None
        assert found.stem == f"gptbox-{expected}"
    monkeypatch.setattr(native, "processor", lambda: {"asimd"})
    assert native.find_library(tmp_path) is None
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert native.find_library(tmp_path) == tmp_path / "gptbox-aarch64.so"


def test_without_a_library_and_numba_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setenv("GPTBOX_LIBRARIES", str(tmp_path))
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="Build the image on this machine, or install numba"):
        native.load()


def test_a_library_for_another_binary_interface_is_refused(best_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_loaded", {})
    monkeypatch.setenv("GPTBOX_LIBRARIES", str(best_library))
    monkeypatch.setattr("gptbox.engine.abi.VERSION", "0123456789abcdef")
    with pytest.raises(EngineError, match=r"gptbox-.+\.so was compiled from another version of gptbox\. Compile it"):
        native.load()
    assert not native._loaded
