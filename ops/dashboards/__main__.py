"""Body of `python -m ops.dashboards [FOLDER]`: write all dashboards there."""

from __future__ import annotations

import sys
from pathlib import Path

from ops.dashboards.files import files

if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "ops/data/dashboards")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")
