"""Deploys a cloud assembly, as `cdk deploy --all` would: assets first, then each stack after those it depends on."""

import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from customization.json_types import Json, JsonObject, as_list, as_object, as_text
from rehearsal.embedded.authorization import Place
from rehearsal.embedded.template_check import check_template

_STACK = "aws:cloudformation:stack"


class AssemblyError(ValueError):
    """The folder is no cloud assembly that can be deployed."""


@dataclass
class CodeFolders:
    """Where the code of functions lies: in the assembly, or unpacked from a zip file that the CDK CLI has uploaded."""

    read: Callable[[str, str], bytes]
    folders: dict[tuple[str, str], Path] = field(default_factory=dict)
    _unpacked: list["tempfile.TemporaryDirectory[str]"] = field(default_factory=list)

    def find(self, bucket: str, key: str) -> Path:
        """Return the folder of an asset by its place in S3."""
        if (bucket, key) not in self.folders:
            folder = tempfile.TemporaryDirectory(prefix="rehearsal-code-")
            self._unpacked.append(folder)
            with zipfile.ZipFile(BytesIO(self.read(bucket, key))) as archive:
                archive.extractall(folder.name)
            self.folders[bucket, key] = Path(folder.name)
        return self.folders[bucket, key]

    def clean_up(self) -> None:
        """Delete what was unpacked."""
        for folder in self._unpacked:
            folder.cleanup()


@dataclass(frozen=True)
class Deployer:
    """Deploys assemblies into one place."""

    place: Place
    code: CodeFolders
    create_stack: Callable[[str, JsonObject], dict[str, str]]

    def deploy(self, assembly: Path) -> dict[str, dict[str, str]]:
        """Return the outputs of each stack by the stack's name.

        Raises AssemblyError, and UnsupportedTemplateError before anything is created.
        """
        artifacts = self._artifacts(assembly)
        stacks = [
            as_object(artifacts[name].get("properties"), name) | {"artifact": name} for name in _in_order(artifacts)
        ]
        templates = {
            str(stack.get("stackName", stack["artifact"])): _read_object(assembly / str(stack["templateFile"]))
            for stack in stacks
        }
        for name, template in templates.items():
            check_template(name, template)
        self._find_code(assembly, artifacts)
        return {name: self.create_stack(name, template) for name, template in templates.items()}

    def _artifacts(self, assembly: Path) -> dict[str, JsonObject]:
        path = assembly / "manifest.json"
        if not path.is_file():
            raise AssemblyError(f"{assembly}: no manifest.json; synthesize the app into this folder first")
        manifest = _read_object(path)
        found = as_object(manifest["artifacts"], "artifacts")
        return {name: as_object(artifact, name) for name, artifact in found.items()}

    def _find_code(self, assembly: Path, artifacts: dict[str, JsonObject]) -> None:
        for artifact in artifacts.values():
            if artifact["type"] != "cdk:asset-manifest":
                continue
            name = as_text(as_object(artifact["properties"], "properties")["file"], "file")
            for item in as_object(_read_object(assembly / name).get("files", {}), name).values():
                asset = as_object(item, name)
                source = as_object(asset["source"], name)
                for destination in as_object(asset["destinations"], name).values():
                    place = as_object(destination, name)
                    bucket, key = self._resolved(place["bucketName"]), self._resolved(place["objectKey"])
                    if source.get("packaging") == "zip":
                        self.code.folders[bucket, key] = (assembly / as_text(source["path"], name)).resolve()

    def _resolved(self, text: Json) -> str:
        values = {"Partition": "aws", "AccountId": self.place.account, "Region": self.place.region}
        resolved = str(text)
        for name, value in values.items():
            resolved = resolved.replace(f"${{AWS::{name}}}", value)
        return resolved


def _in_order(artifacts: dict[str, JsonObject]) -> list[str]:
    """Return the names of the stacks, each after those it depends on."""
    ordered: list[str] = []

    def add(name: str) -> None:
        for dependency in as_list(artifacts[name].get("dependencies", []), name):
            add(str(dependency))
        if name not in ordered and artifacts[name]["type"] == _STACK:
            ordered.append(name)

    for name, artifact in artifacts.items():
        if artifact["type"] == _STACK:
            add(name)
    return ordered


def _read_object(path: Path) -> JsonObject:
    content: Json = json.loads(path.read_text("utf-8"))
    return as_object(content, path.name)
