"""Faults that are planted one at a time in a copy of the package: a test must notice each."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mutants import invalidation, keys, locks, nodes, recomputes, straight, values

ROOT: Final = Path(__file__).parents[3]
SUBJECTS: Final = (locks, recomputes, invalidation, nodes, keys, straight, values)
MUTANTS: Final = [mutant for subject in SUBJECTS for mutant in subject.MUTANTS]
