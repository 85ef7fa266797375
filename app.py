"""The composition root, run by `cdk synth` and, with the same result, by `CDK_OUTDIR=cdk.out python app.py`."""

import json
import sys
from pathlib import Path

import stacks  # noqa: F401  names the Node that importing aws_cdk starts

# isort: split
from aws_cdk import App

from stacks.config import ConfigurationError, read_config
from stacks.governance import govern
from stacks.layers import LayerBuildError
from stacks.nag import attach_packs
from stacks.operations import OperationsStack
from stacks.pipeline import PipelineStack
from stacks.storage import StorageStack


def main() -> None:
    # The CLI lays its -c over the context of cdk.json. Stack traces would end in the JavaScript below Python
    context = json.loads((Path(__file__).parent / "cdk.json").read_bytes())["context"]
    app = App(context=context, stack_traces=False, builtin_cloud_formation_validation=False)
    config = read_config(app.node.get_all_context())
    attach_packs(app)
    name = f"Customization-{config.stage}"
    storage = StorageStack(app, f"{name}-Storage", config=config)
    pipeline = PipelineStack(app, f"{name}-Pipeline", config=config, storage=storage)
    pipeline.add_stack_dependency(storage, "Names and ARNs of the storage are imported by name")
    OperationsStack(app, f"{name}-Operations", config=config, pipeline=pipeline)
    govern(app, config)
    app.synth()


if __name__ == "__main__":
    try:
        main()
    except (ConfigurationError, LayerBuildError) as error:
        sys.exit(str(error))
