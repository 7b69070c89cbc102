"""The profiles that come with the kit, and those that a team brings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from shardcache import ConfigurationError
from shardcache.testing import Profile

DIRECTORY: Final = Path(__file__).parent / "profiles"
DEFAULT: Final = "read-mostly"


def known() -> list[str]:
    """Return the names of the profiles that come with the kit."""
    return sorted(path.stem for path in DIRECTORY.glob("*.toml"))


def find(name: str | None) -> Profile:
    """Return the profile of a name, or of a file that ends in `.toml`.

    Raise `ConfigurationError` for one that is not known, with those that are.
    """
    if name is None or name == "":
        name = DEFAULT
    if name.endswith(".toml"):
        return Profile.load(name)
    if name not in known():
        raise ConfigurationError(
            f"no profile {name!r} (known: {', '.join(known())}; a file of your own ends in .toml)"
        )
    return Profile.load(DIRECTORY / f"{name}.toml")
