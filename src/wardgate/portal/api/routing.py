"""Routes as this API has them: PATCH and PUT are the same, and both change only what is given."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter

_F = TypeVar("_F", bound=Callable[..., Any])


def updates(router: APIRouter, path: str) -> Callable[[_F], _F]:
    """Puts a function at PATCH and at PUT of a path."""

    def put(function: _F) -> _F:
        router.patch(path)(function)
        router.put(path)(function)
        return function

    return put
