"""Values from files, made safe for JSON."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """The value with None for each infinity and NaN, which JSON lacks: files written by hand may hold them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value
