"""The cache of loaded snapshots."""

from collections.abc import Callable
from pathlib import Path

from gptbox.web.model_cache import ModelCache

Publish = Callable[..., Path]


def test_the_cache_is_bounded_by_count_and_bytes(publish: Publish) -> None:
    paths = [publish(step) for step in range(1, 7)]
    cache = ModelCache(max_count=3)
    models = [cache.load(path) for path in paths]
    assert len(cache) == 3
    assert cache.load(paths[5]) is models[5]
    assert cache.load(paths[0]) is not models[0]
    small = ModelCache(max_bytes=models[0].gpt.size)
    for path in paths[:3]:
        assert small.load(path).path == path
        assert len(small) == 1
    assert models[0].gpt.size > 50_000


def test_the_least_recently_used_snapshot_is_evicted_first(publish: Publish) -> None:
    paths = [publish(step) for step in (1, 2, 3)]
    cache = ModelCache(max_count=2)
    first, second = cache.load(paths[0]), cache.load(paths[1])
    assert cache.load(paths[0]) is first
    cache.load(paths[2])
    assert cache.load(paths[0]) is first
    assert cache.load(paths[1]) is not second
