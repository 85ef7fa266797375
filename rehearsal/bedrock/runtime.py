"""Converse and InvokeModel: base models answer as they were pre-trained, custom models as they were trained."""

import hashlib
import json
import math
import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING

from customization.catalogue import BaseModel
from customization.json_types import JsonObject, as_list, as_object
from customization.money import PriceItem
from rehearsal.bedrock.account import Account, Serving
from rehearsal.bedrock.base_models import BaseModels
from rehearsal.bedrock.errors import ServiceError, not_found, validation
from rehearsal.bedrock.families import (
    DEFAULT_MAX_TOKENS,
    WITHOUT_SYSTEM,
    Ask,
    family_of,
    malformed,
    read_body,
    read_messages,
)
from rehearsal.bedrock.faults import Faults
from rehearsal.bedrock.language_model import Generation
from rehearsal.bedrock.ledger import Charge, Ledger
from rehearsal.bedrock.protocol import Request, Response
from rehearsal.bedrock.tokens import count_tokens, first_tokens
from rehearsal.bedrock.trainer import Trainer

if TYPE_CHECKING:
    from rehearsal.bedrock.language_model import LanguageModel

NOT_READY = "Model is not ready for inference. Wait and try your request again."
# So many tokens of the small language model may be needed for one that is billed.
OWN_TOKENS = 3
# An answer's latency: milliseconds before the first token and for each, times a lognormal factor of this spread.
FIRST_TOKEN_MS, TOKEN_MS, LATENCY_SPREAD = 250.0, 12.0, 0.25
# An answer is thousands of small steps: threads that take turns at them only hand each other the interpreter's lock
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Target:
    """What answers for a modelId; `billed` are the items for its tokens, empty when hours are billed.

    `arn` is what the bill names, `model` the base or custom model that answers.
    """

    arn: str
    model: str
    base: BaseModel
    language_model: "LanguageModel"
    billed: tuple[PriceItem, ...]


@dataclass(frozen=True)
class Answer:
    generation: Generation
    latency_ms: int


class Runtime:
    """What answers; `answers` counts them by the model and the prompt."""

    def __init__(
        self, account: Account, base_models: BaseModels, trainer: Trainer, ledger: Ledger, faults: Faults
    ) -> None:
        self._account = account
        self._base_models = base_models
        self._trainer = trainer
        self._ledger = ledger
        self._faults = faults
        self.answers: Counter[tuple[str, str]] = Counter()

    def converse(self, request: Request, now: datetime) -> Response:
        """Converse, with text only."""
        parameters = request.parameters
        target = self._target(str(parameters["modelId"]), now)
        for member in ("toolConfig", "guardrailConfig", "additionalModelRequestFields", "promptVariables"):
            if member in parameters:
                raise validation(f"The rehearsal does not know {member}.")
        prefix, _ = family_of(target.base.base_model_identifier)
        if parameters.get("system") and prefix in WITHOUT_SYSTEM:
            raise validation("This model doesn't support system messages. Try again without system messages.")
        answer = self._answer(target, _read_converse(parameters), now)
        generation = answer.generation
        return Response(
            {
                "output": {"message": {"role": "assistant", "content": [{"text": generation.text}]}},
                "stopReason": generation.stop_reason,
                "usage": {
                    "inputTokens": generation.input_tokens,
                    "outputTokens": generation.output_tokens,
                    "totalTokens": generation.input_tokens + generation.output_tokens,
                },
                "metrics": {"latencyMs": answer.latency_ms},
            }
        )

    def invoke_model(self, request: Request, now: datetime) -> Response:
        """InvokeModel, with the body of the model's family."""
        target = self._target(str(request.parameters["modelId"]), now)
        _, family = family_of(target.base.base_model_identifier)
        ask = read_body(family, request.payload)
        answer = self._answer(target, ask, now)
        return Response(
            payload=json.dumps(family.write(ask, answer.generation), ensure_ascii=False).encode(),
            headers={
                "X-Amzn-Bedrock-Input-Token-Count": str(answer.generation.input_tokens),
                "X-Amzn-Bedrock-Output-Token-Count": str(answer.generation.output_tokens),
                "X-Amzn-Bedrock-Invocation-Latency": str(answer.latency_ms),
            },
        )

    def _target(self, model_id: str, now: datetime) -> Target:
        with self._account.lock:
            if ":custom-model-deployment/" in model_id:
                deployment = self._account.deployments.get(model_id)
                return self._served(deployment, now, ("customInputTokens", "customOutputTokens"))
            if ":provisioned-model/" in model_id:
                return self._served(self._account.throughputs.get(model_id), now, ())
            if ":custom-model/" in model_id:
                raise validation(f"Invocation of model ID {model_id} with on-demand throughput isn't supported.")
            base = self._base_models.on_demand(model_id)
            if base is None:
                raise not_found("Model not found.")
            self._base_models.require_offered(base, now)
        if self._faults.strike("base-model-unavailable") is not None:
            raise ServiceError(
                "AccessDeniedException", "You don't have access to the model with the specified model ID."
            )
        self._strike()
        arn = self._account.arn("foundation-model", base.inference_model_id)
        return Target(arn, arn, base, self._trainer.base_model.result(), ("inputTokens", "outputTokens"))

    def _served(self, serving: Serving | None, now: datetime, billed: tuple[PriceItem, ...]) -> Target:
        if serving is None:
            raise not_found("Model not found.")
        # The model is loaded on its first call; callers are expected to try again.
        if not serving.is_ready(now) or not serving.loaded or self._faults.strike("model-not-ready") is not None:
            serving.loaded = serving.loaded or serving.is_ready(now)
            raise ServiceError("ModelNotReadyException", NOT_READY)
        self._strike()
        arn = serving.current_arn(now)
        model = self._account.models.get(arn)
        language_model = model.language_model if model else self._trainer.base_model.result()
        return Target(serving.arn, arn, serving.base, language_model, billed)

    def _strike(self) -> None:
        if self._faults.strike("throttled") is not None:
            raise ServiceError("ThrottlingException", "Too many requests, please wait before trying again.")
        if self._faults.strike("answers-fail") is not None:
            raise ServiceError(
                "InternalServerException",
                "The system encountered an unexpected error during processing. Try your request again.",
            )

    def _answer(self, target: Target, ask: Ask, now: datetime) -> Answer:
        context = context_tokens(target.base)
        if context and count_tokens(ask.prompt) > context:
            raise validation("Input is too long for requested model.")
        digest = hashlib.sha256(f"{self._account.seed}/{target.arn}/{ask}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big")
        generation = _generate(target.language_model, ask, seed)
        self.answers[target.model, ask.prompt] += 1
        for item, tokens in zip(target.billed, (generation.input_tokens, generation.output_tokens), strict=False):
            self._ledger.add(Charge(target.arn, target.base.base_model_identifier, item, tokens / 1000, now, now))
        factor = math.exp(Random(seed).gauss(0.0, LATENCY_SPREAD))  # noqa: S311  a latency is no secret
        return Answer(generation, round((FIRST_TOKEN_MS + TOKEN_MS * generation.output_tokens) * factor))


def _generate(model: "LanguageModel", ask: Ask, seed: int) -> Generation:
    """Return the answer, cut and counted by the tokens that are billed: those of the small model are shorter."""
    most = ask.max_tokens * OWN_TOKENS
    with _ONE_AT_A_TIME:
        own = model.answer(ask.prompt, most, ask.temperature, ask.top_p, ask.stop_sequences, seed)
    text = first_tokens(own.text, ask.max_tokens)
    reason = own.stop_reason if text == own.text else "max_tokens"
    return Generation(text, count_tokens(ask.prompt), count_tokens(text), reason)


def context_tokens(base: BaseModel) -> int | None:
    """Return the context length that a customization id ends with (`:128k`), in tokens; None when it has none."""
    suffix = base.base_model_identifier.rsplit(":", 1)[-1]
    return int(suffix[:-1]) * 1024 if suffix.endswith("k") and suffix[:-1].isdecimal() else None


def _read_converse(parameters: JsonObject) -> Ask:
    config = as_object(parameters.get("inferenceConfig", {}), "inferenceConfig")
    try:
        prompt = read_messages(parameters.get("messages", []), parameters.get("system"))
    except TypeError as error:
        raise malformed(str(error)) from error
    return Ask(
        prompt=prompt,
        max_tokens=int(str(config.get("maxTokens", DEFAULT_MAX_TOKENS))),
        temperature=float(str(config.get("temperature", Ask.temperature))),
        top_p=float(str(config.get("topP", Ask.top_p))),
        stop_sequences=tuple(str(text) for text in as_list(config.get("stopSequences", []), "stopSequences")),
    )
