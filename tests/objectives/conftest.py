"""The objectives of these tests are found as anybody's are: by the name of a module that can be imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
