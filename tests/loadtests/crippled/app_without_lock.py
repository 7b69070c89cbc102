"""The application's page is cached without a lock: see `environment/sitecustomize.py`."""

import os
from pathlib import Path

os.environ["PYTHONPATH"] = str(Path(__file__).parent / "environment")
