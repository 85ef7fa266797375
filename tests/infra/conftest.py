"""Two syntheses for a whole test session: the settings of cdk.json, and those of a governed organization."""

from pathlib import Path

import pytest

from customization.json_types import Json, JsonObject
from docs.render.settings_page import EXAMPLES
from tests.infra.synthesis import synthesize


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the cloud assembly of the settings in cdk.json lies; `templates` fills it."""
    return tmp_path_factory.mktemp("default") / "cdk.out"


@pytest.fixture(scope="session")
def templates(assembly: Path) -> dict[str, JsonObject]:
    """Return the templates `storage`, `pipeline` and `operations` with the settings of cdk.json."""
    return synthesize(assembly, {"nist80053r5": "true"})


@pytest.fixture(scope="session")
def governed_settings() -> dict[str, Json]:
    return {
        "stage": "prod1",
        "region": "us-west-2",
        "account": "123456789012",
        "baseModelIdentifier": "meta.llama3-1-8b-instruct-v1:0:128k",
        "permissionsBoundary": "Guardrails",
        "rolePath": "/teams/ml/",
        "tags": '{"team": "ml", "cost-center": "4711"}',
        "validateTemplates": "true",
        "nist80053r5": "true",
        **EXAMPLES,
    }


@pytest.fixture(scope="session")
def governed_assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the cloud assembly of `governed` lies."""
    return tmp_path_factory.mktemp("governed") / "cdk.out"


@pytest.fixture(scope="session")
def governed(governed_assembly: Path, governed_settings: dict[str, Json]) -> dict[str, JsonObject]:
    """Return the templates of an organization that sets everything there is by `-c`."""
    return synthesize(governed_assembly, governed_settings)
