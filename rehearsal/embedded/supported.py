"""What the embedded AWS runs faithfully; everything else is refused."""

import json
from pathlib import Path

from customization.json_types import JsonObject, as_object

SUPPORTED: JsonObject = as_object(json.loads(Path(__file__).with_suffix(".json").read_text("utf-8")), "supported.json")
