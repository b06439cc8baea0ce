"""The page's modules, called from tests."""

from typing import Any

from playwright.sync_api import Page


def run_module(page: Page, file: str, script: str, argument: Any = None) -> Any:
    """The result of the function `script` of a module's exports and an argument."""
    return page.evaluate(
        f'async (argument) => ({script})(await import(new URL("{file}", document.styleSheets[0].href)), argument)',
        argument,
    )
