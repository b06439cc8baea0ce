"""The published folder: complete or absent, and rejected with the reason if damaged."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gptbox.errors import ModelFolderError
from gptbox.models import folder as model_folder
from gptbox.models import weights
from gptbox.models.config import ModelConfig
from gptbox.tokenizers.byte import ByteTokenizer


def test_loading_gives_the_written_model(
    config: ModelConfig, write_model: Callable[..., Path], make_weights: Callable[..., weights.Weights], tmp_path: Path
) -> None:
    folder = model_folder.load(write_model(tmp_path / "model", config, step=250))
    assert folder.info is not None
    assert folder.info.step == 250
    assert folder.tokenizer.decode(folder.tokenizer.encode("HELLO\n")) == "HELLO\n"
    for name, weight in make_weights(config).items():
        np.testing.assert_array_equal(folder.weights[name], weight)


def test_the_folder_has_the_files_that_transformers_expects(write_model: Callable[..., Path], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    assert sorted(file.name for file in path.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "gptbox.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert all(tensor.dtype == np.float32 for tensor in load_file(path / "model.safetensors").values())
    assert json.loads((path / "config.json").read_text())["model_type"] == "qwen3"


def test_an_end_of_text_token_is_named_where_transformers_looks_for_it(
    write_model: Callable[..., Path], tmp_path: Path
) -> None:
    class WithEnd(ByteTokenizer):
        eos_id = 3

    config = ModelConfig(architecture="gpt2", vocab_size=256, context_length=8, n_layer=1, n_head=1, n_embd=4)
    for name, tokenizer, expected in (("with", WithEnd(), 3), ("without", ByteTokenizer(), None)):
        path = write_model(tmp_path / name, config, tokenizer=tokenizer)
        for file in ("config.json", "generation_config.json"):
            assert json.loads((path / file).read_text()).get("eos_token_id") == expected


def test_the_umask_decides_who_may_read_the_files(write_model: Callable[..., Path], tmp_path: Path) -> None:
    """A model may be copied elsewhere, or served by another user than the one who trained it."""
    before = os.umask(0o022)
    try:
        path = write_model(tmp_path / "model")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o644}


def test_a_failed_write_leaves_nothing_behind(
    write_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_folder, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_model(tmp_path / "snapshots" / "step-000001")
    assert list((tmp_path / "snapshots").iterdir()) == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_tensor(path: Path) -> None:
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path)


def reshape_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].copy()
    save_file(tensors, path)


def edit(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("model.safetensors", Path.unlink, "model.safetensors"),
        ("model.safetensors", cut, "not a readable model folder"),
        ("model.safetensors", drop_tensor, "lacks model.norm.weight"),
        ("model.safetensors", reshape_tensor, "final_norm.weight"),
        ("config.json", Path.unlink, r"config\.json is missing"),
        ("config.json", cut, r"config\.json cannot be read"),
        ("config.json", lambda path: path.write_text("[]"), "does not hold a JSON object"),
        ("config.json", edit(num_hidden_layers="two"), "n_layer"),
        ("config.json", edit(hidden_size=31, head_dim=16), "embedding.weight"),
        ("tokenizer.json", cut, r"tokenizer\.json cannot be read"),
        ("tokenizer.json", edit(model={"type": "BPE"}), "BPE"),
        ("tokenizer.json", edit(model={"type": "WordLevel", "vocab": {"a": 3}}), "number its characters"),
        ("gptbox.json", edit(format_version=99), "format version 99"),
        ("gptbox.json", lambda path: path.write_text('{"format_version": 1}'), "incomplete"),
    ],
)
def test_a_damaged_folder_is_rejected_with_the_reason(
    write_model: Callable[..., Path], tmp_path: Path, file: str, damage: Callable[[Path], None], said: str
) -> None:
    path = write_model(tmp_path / "model")
    damage(path / file)
    with pytest.raises(ModelFolderError, match=said):
        model_folder.load(path)


def test_a_tokenizer_with_more_ids_than_the_model_is_rejected(write_model: Callable[..., Path], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    content = json.loads((path / "tokenizer.json").read_text())
    content["model"]["vocab"]["é"] = len(content["model"]["vocab"])
    (path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match="66 ids, the model only 65"):
        model_folder.load(path)


def test_a_folder_without_gptbox_json_loads(write_model: Callable[..., Path], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    (path / "gptbox.json").unlink()
    assert model_folder.load(path).info is None


def test_a_loaded_model_outlives_its_folder(write_model: Callable[..., Path], tmp_path: Path) -> None:
    path = write_model(tmp_path / "model")
    folder = model_folder.load(path)
    shutil.rmtree(path)
    assert all(np.isfinite(weight).all() for weight in folder.weights.values())
