"""The OpenAPI document of an API, made from the models that its operations validate with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ..problems import ProblemDocument
from .operation import Auth, Media, Operation

Schema = dict[str, Any]
_REFERENCE = "#/components/schemas/{model}"
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\*?\}")

_ALWAYS = (400, 405, 500, 503)
_DESCRIPTIONS = {
    400: "A parameter or the body is wrong.",
    401: "No good token was shown.",
    403: "The permission is too small.",
    404: "There is no such thing, or it is not for this client to see.",
    405: "The path has other methods.",
    409: "It does not go together with what is there.",
    410: "It is gone.",
    411: "The length of the body must be told.",
    412: "A precondition is not met.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    416: "The range lies outside.",
    422: "Nothing of it could be done.",
    423: "Somebody else is at it.",
    460: "The checksum is not that of the bytes.",
    500: "The gateway failed; its log says why.",
    501: "The volume cannot do that.",
    503: "Try again later.",
    507: "A limit leaves no room.",
}


def document(
    operations: Iterable[Operation], *, title: str, description: str, security: Mapping[str, Schema]
) -> Schema:
    """Return the OpenAPI 3.1 document.

    Args:
        security: the schemes by which a client says who it is, any of them.
    """
    shown = [operation for operation in operations if not operation.hidden]
    schemas = _Schemas(shown)
    paths: dict[str, Schema] = {}
    for operation in shown:
        path = _PLACEHOLDER.sub(r"{\1}", operation.path)
        item = _operation(operation, schemas, list(security))
        paths.setdefault(path, {})[operation.method.lower()] = item
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version("backupgw-vfsproxy"),
            "description": description,
        },
        "paths": paths,
        "components": {"schemas": schemas.definitions, "securitySchemes": dict(security)},
    }


class _Schemas:
    """The schemas of all models, by model and mode."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {
            (ProblemDocument, "serialization"): None
        }
        for operation in operations:
            wanted[operation.parameters, "validation"] = None
            if operation.body is not None:
                wanted[operation.body, "validation"] = None
            if operation.answer is not None:
                wanted[operation.answer, "serialization"] = None
        references, found = models_json_schema(list(wanted), ref_template=_REFERENCE)
        self._references = references
        self.definitions: Schema = found.get("$defs", {})
        self._parameters = {
            operation.parameters: self._definition(operation.parameters) for operation in operations
        }
        # Parameters are told one by one.
        for model in self._parameters:
            self.definitions.pop(self._name(model, "validation"), None)

    def reference(self, model: type[BaseModel], mode: JsonSchemaMode) -> Schema:
        return dict(self._references[model, mode])

    def parameters(self, model: type[BaseModel]) -> Schema:
        return self._parameters[model]

    def _name(self, model: type[BaseModel], mode: JsonSchemaMode) -> str:
        name: str = self._references[model, mode]["$ref"].rpartition("/")[2]
        return name

    def _definition(self, model: type[BaseModel]) -> Schema:
        definition: Schema = self.definitions[self._name(model, "validation")]
        return definition


def _operation(operation: Operation, schemas: _Schemas, security: list[str]) -> Schema:
    item: Schema = {
        "operationId": f"{operation.name}.{operation.method.lower()}",
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation, schemas),
        "responses": _responses(operation, schemas),
    }
    if operation.body is not None:
        schema = schemas.reference(operation.body, "validation")
        # A body whose every field has a default may be left out.
        required = any(field.is_required() for field in operation.body.model_fields.values())
        item["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": schema}},
        }
    elif operation.takes is not None:
        item["requestBody"] = {"required": True, "content": _media(operation.takes)}
    if operation.auth is Auth.KNOWN:
        item["security"] = [{name: []} for name in security]
    return item


def _parameters(operation: Operation, schemas: _Schemas) -> list[Schema]:
    schema = schemas.parameters(operation.parameters)
    in_path = set(_PLACEHOLDER.findall(operation.path))
    required = set(schema.get("required", ()))
    found = []
    for name, described in schema.get("properties", {}).items():
        described = dict(described)
        parameter: Schema = {"name": name, "in": "path" if name in in_path else "query"}
        parameter["required"] = name in in_path or name in required
        if text := described.pop("description", None):
            parameter["description"] = text
        parameter["schema"] = described
        found.append(parameter)
    for name, text in operation.request_headers.items():
        found.append(
            {
                "name": name,
                "in": "header",
                "required": False,
                "description": text,
                "schema": {"type": "string"},
            }
        )
    return found


def _responses(operation: Operation, schemas: _Schemas) -> Schema:
    success: Schema = {"description": operation.summary}
    if operation.answer is not None:
        reference = schemas.reference(operation.answer, "serialization")
        success["content"] = {"application/json": {"schema": reference}}
    elif operation.gives is not None:
        success["content"] = _media(operation.gives)
    if operation.response_headers:
        success["headers"] = {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in operation.response_headers.items()
        }
    responses: Schema = {str(operation.status): success}
    for status, text in operation.also.items():
        responses[str(status)] = {**success, "description": text}
    refusals = {*_ALWAYS, *operation.problems}
    if operation.auth is Auth.KNOWN:
        refusals |= {401, 403}
    if _PLACEHOLDER.search(operation.path):
        refusals.add(404)
    if operation.body is not None:
        refusals |= {413, 415}
    problem = schemas.reference(ProblemDocument, "serialization")
    for status in sorted(refusals):
        responses.setdefault(
            str(status),
            {
                "description": _DESCRIPTIONS.get(status, "Refused."),
                "content": {"application/problem+json": {"schema": problem}},
            },
        )
    # Said by the host, before the API sees the request.
    responses["431"] = {"description": "The URL or the headers are too long."}
    return responses


def _media(media: Media) -> Schema:
    if media.types == ("application/json",):
        return {"application/json": {"schema": {"type": "object"}}}
    # Bytes are of no type that a schema has (OpenAPI 3.1, 4.8.14.1).
    schema: Schema = {}
    if media.description:
        schema["description"] = media.description
    return {kind: {"schema": schema} for kind in media.types}
