"""What an import loads: serving must not pay for training."""

import subprocess
import sys


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in out.split()} | set(out.split())


def test_the_web_app_loads_neither_torch_nor_training() -> None:
    loaded = loaded_after("import gptbox.web, gptbox.web.app")
    assert "starlette" in loaded
    assert not loaded & {"torch", "transformers", "tiktoken", "gptbox.train", "gptbox.datasets", "matplotlib"}


def test_encoding_a_prompt_loads_tiktoken_but_nothing_for_training_or_downloads() -> None:
    loaded = loaded_after(
        "from gptbox.tokenizers import tokenizer_from_json\n"
        "from gptbox.tokenizers.bpe import BPETokenizer\n"
        "content = BPETokenizer([bytes((byte,)) for byte in range(256)]).to_json()\n"
        "assert tokenizer_from_json(content).encode('a prompt').tolist() == list(b'a prompt')"
    )
    assert "tiktoken" in loaded
    # Some of these are not in the web image: see scripts/lock.
    assert not loaded & {"tokenizers", "transformers", "torch", "regex", "requests", "urllib3", "certifi"}


def test_the_engine_loads_no_web_framework() -> None:
    loaded = loaded_after("import gptbox.engine.scheduler")
    assert not loaded & {"torch", "starlette", "uvicorn", "pydantic", "gptbox.web"}


def test_the_command_line_loads_no_heavy_module() -> None:
    assert not loaded_after("import gptbox.cli") & {"torch", "numpy", "starlette", "safetensors"}
