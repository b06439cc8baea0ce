"""OpenAI's `system_fingerprint`: where it is the same, the same request with the same seed gives the same text."""

import hashlib
from functools import cache
from pathlib import Path

from gptbox import __version__
from gptbox.engine import native
from gptbox.models import context_window

_ENGINE = Path(__file__).parent
_SOURCES = (_ENGINE, _ENGINE / "kernels", _ENGINE.parent / "jit", Path(context_window.__file__))
"""Files and folders of sources."""


def system_fingerprint(quantize: bool) -> str | None:
    """Such as `gptbox-0.1.0-1a2b3c4d`: the version, and a hash of whatever else a text depends on beside its request.

    That is the engine's sources, the compiler and the processor features that it used, and whether the weights are
    int8. The number of threads and other requests change no text. None until the kernels are loaded.
    """
    target = native.target()
    return None if target is None else _fingerprint(__version__, target, quantize)


@cache
def _fingerprint(version: str, target: str, quantize: bool) -> str:
    digest = hashlib.sha256(f"{target} {'int8' if quantize else 'float32'}".encode())
    for sources in _SOURCES:
        for path in sorted(sources.glob("*.py")) if sources.is_dir() else [sources]:
            digest.update(path.read_bytes())
    return f"gptbox-{version}-{digest.hexdigest()[:8]}"
