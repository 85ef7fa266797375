"""What the clone that a command is run in says of the deployment: the settings of its cdk.json."""

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import argparse

SETTINGS = Path("cdk.json")


class Chosen(msgspec.Struct, frozen=True, rename="camel"):
    """The settings that commands need, with the defaults of the deployment; a test compares them."""

    stage: str = "dev"
    region: str = "us-east-1"
    base_model_identifier: str = "amazon.nova-micro-v1:0:128k"


class _Context(msgspec.Struct, frozen=True):
    settings: Chosen = Chosen()


class _Document(msgspec.Struct, frozen=True):
    context: _Context = _Context()


def read_chosen(path: Path = SETTINGS) -> Chosen:
    """Return what cdk.json chooses, or the defaults where there is none; raises ValueError naming what is wrong."""
    if not path.is_file():
        return Chosen()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Document).context.settings
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}; mend it, cdk deploy reads it too") from error


def add_place(parser: "argparse.ArgumentParser") -> Chosen:
    """Add --stage and --region with what cdk.json chooses as defaults, which is returned; ends as wrong use does."""
    try:
        chosen = read_chosen()
    except ValueError as error:
        parser.error(str(error))
    parser.add_argument("--stage", default=chosen.stage, help=f"the stage that was deployed (default: {chosen.stage})")
    parser.add_argument(
        "--region", default=chosen.region, help=f"the Region that was deployed to (default: {chosen.region})"
    )
    return chosen
