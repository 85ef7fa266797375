"""moto's backends by the name of their service; moto itself is imported by `load` of moto_services and not before."""

import importlib
from typing import TYPE_CHECKING

__all__ = ["get_backend"]

if TYPE_CHECKING:
    from moto.backends import get_backend
else:

    def get_backend(name: str) -> object:
        """Return what a service keeps, by account and then by Region, or by "aws" where it has none."""
        return importlib.import_module("moto.backends").get_backend(name)
