"""What the clone that a command is run in says of the deployment: the settings of its cdk.json."""

import argparse
from pathlib import Path

import msgspec

SETTINGS = Path("cdk.json")


class Chosen(msgspec.Struct, frozen=True, rename="camel"):
    """The settings that commands need, as `cdk deploy` reads them; empty where cdk.json does not say."""

    stage: str = "dev"
    region: str = ""
    base_model_identifier: str = ""


class _Context(msgspec.Struct, frozen=True):
    settings: Chosen = Chosen()


class _Document(msgspec.Struct, frozen=True):
    context: _Context = _Context()


def read_chosen(path: Path = SETTINGS) -> Chosen:
    """Return what cdk.json chooses, or the defaults where there is none."""
    if not path.is_file():
        return Chosen()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Document).context.settings
    except msgspec.MsgspecError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error}") from error


def add_place(parser: argparse.ArgumentParser, chosen: Chosen) -> None:
    """Add --stage and --region with the defaults of the clone."""
    parser.add_argument("--stage", default=chosen.stage, help=f"the stage that was deployed (default: {chosen.stage})")
    parser.add_argument(
        "--region",
        default=chosen.region or None,
        required=not chosen.region,
        help=f"the Region that was deployed to (default: {chosen.region or 'none, it must be given'})",
    )
