"""What the README's figures come from. The functions' import root, lambda/, is put on the path, as Lambda does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "lambda"))
