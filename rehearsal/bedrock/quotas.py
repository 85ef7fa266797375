"""The stand-in of Service Quotas: the quotas of Bedrock that the pipeline asks for, and those that people see."""

import json
from collections.abc import Mapping

# "Model units, with no commitment, across custom models"; 0 in a new account (AWS General Reference, Bedrock quotas).
MODEL_UNITS = "L-BE77399C"
# Custom models per account, and total custom model deployments
_USUAL = {"L-CB5B847D": 100.0, "L-1EF80F3E": 10.0}
# By name and with the value of a new account (AWS General Reference, Bedrock quotas).
_LISTED = {
    "Custom models per account": 100.0,
    "(Model customization) Scheduled customization jobs": 10.0,
    "Total custom model deployments": 10.0,
    "In-progress custom model deployments": 2.0,
}
_MODEL_UNITS_NAME = "Model units no-commitment Provisioned Throughputs across custom models"
_JSON = {"Content-Type": "application/x-amz-json-1.1"}


class ServiceQuotas:
    """Answers GetServiceQuota as an account does whose quota of model units is `model_units`."""

    def __init__(self, region: str, account: str, model_units: int) -> None:
        self._place = f"arn:aws:servicequotas:{region}:{account}:bedrock"
        self._quotas = {**_USUAL, MODEL_UNITS: float(model_units)}

    def handle(
        self, method: str, path: str, query_string: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body for one request."""
        del method, path, query_string
        operation = next((value for name, value in headers.items() if name.lower() == "x-amz-target"), "")
        code = str(json.loads(body or b"{}").get("QuotaCode"))
        if operation.endswith(".ListServiceQuotas"):
            named = {**_LISTED, _MODEL_UNITS_NAME: self._quotas[MODEL_UNITS]}
            listed = [{"ServiceCode": "bedrock", "QuotaName": name, "Value": value} for name, value in named.items()]
            return 200, _JSON, json.dumps({"Quotas": listed}).encode()
        if not operation.endswith(".GetServiceQuota"):
            return _refusal(f"The rehearsal does not know {operation} of Service Quotas.")
        if code not in self._quotas:
            return _refusal(f"The rehearsal knows no quota {code}.")
        quota = {"ServiceCode": "bedrock", "QuotaCode": code, "Value": self._quotas[code], "Unit": "None"}
        return 200, _JSON, json.dumps({"Quota": quota}).encode()

    def authorization(self, method: str, path: str, query_string: str, body: bytes) -> list[tuple[str, str]]:
        """Return the one permission that GetServiceQuota needs."""
        del method, path, query_string
        code = json.loads(body or b"{}").get("QuotaCode")
        return [("servicequotas:GetServiceQuota", f"{self._place}/{code}")]

    def tags(self, resource_arn: str) -> Mapping[str, str]:
        """Return none: a quota has no tags here."""
        del resource_arn
        return {}

    def request_tags(self, method: str, path: str, query_string: str, body: bytes) -> Mapping[str, str]:
        """Return none: nothing is made here."""
        del method, path, query_string, body
        return {}


def _refusal(message: str) -> tuple[int, Mapping[str, str], bytes]:
    return 400, _JSON, json.dumps({"__type": "NoSuchResourceException", "message": message}).encode()
