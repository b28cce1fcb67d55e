"""The recipe cache on disk: PT_HPU_RECIPE_CACHE_CONFIG=path,delete_on_start,size_MB[,on_nfs].

Source: docs.habana.ai, "Runtime environment variables", and scripts/env_flags.yaml of
HabanaAI/gaudi-pytorch-bridge. Empty fields have their defaults: no path, false, 1024, false. On a
network file system (the fourth field) the bridge ignores the second and the third.
"""

from typing import NamedTuple

from ._device import recipes
from .internal import bridge_config
from .internal.flags import truthy

__all__ = ["CacheConfig", "parse_config", "use_recipe_cache"]

_FALSE = frozenset({"", "0", "false", "f", "no", "n", "off"})
_UNLIMITED = 1 << 62


class CacheConfig(NamedTuple):
    """The fields of the variable; ``limit_bytes`` of the whole folder."""

    folder: str
    empty_first: bool
    limit_bytes: int


def parse_config(text: str) -> CacheConfig:
    """Read the variable's value.

    Raises:
        ValueError: it has other fields than the four.
    """
    fields = [field.strip() for field in text.split(",")]
    folder, delete, size, network = (*fields, "", "", "", "")[:4]
    for field in (delete, network):
        if not truthy(field) and field.lower() not in _FALSE:
            raise _wrong(text, f"'{field}' is neither true nor false")
    if len(fields) > 4:
        raise _wrong(text, f"it has {len(fields)} fields")
    if size and not (size.isascii() and size.isdigit() and int(size) > 0):
        raise _wrong(text, f"the size '{size}' is not a positive number of megabytes")
    if truthy(network):
        return CacheConfig(folder, False, _UNLIMITED)
    return CacheConfig(folder, truthy(delete), int(size or "1024") << 20)


def _wrong(text: str, why: str) -> ValueError:
    return ValueError(
        f"PT_HPU_RECIPE_CACHE_CONFIG='{text}': {why}. Give path,delete_on_start,size_MB[,on_nfs], "
        "such as /var/cache/recipes,false,1024"
    )


def use_recipe_cache() -> None:
    """Let the device keep recipes where the variable says."""
    recipes.use_folder(*parse_config(str(bridge_config.get_pt_hpu_recipe_cache_config())))
