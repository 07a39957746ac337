"""What travels over HTTP: requests, responses, refusals. Reads no socket and runs no model.

A refusal is `{"error": "what was expected, what arrived, what to do", "error_type": "TooLarge"}`, and under /v1/, where
OpenAI's clients read it, `{"error": {"message", "type", "param", "code"}}`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from weebill.limits import Limits
from weebill.schema import Overflow

STATUS = {  # by error_type
    "InvalidJson": 400,
    "Empty": 400,
    "Unauthorized": 401,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "Timeout": 408,
    "TooLarge": 413,
    "Validation": 422,
    "Tokenizer": 422,
    "Overloaded": 429,
    "Internal": 500,
}
_JSON_KIND = {"NoneType": "null", "bool": "a boolean", "int": "a number", "float": "a number", "dict": "an object",
              "list": "a list", "str": "a string"}  # fmt: skip


class Refusal(Exception):
    """An answer other than 200: its `error_type`, one of STATUS, and a message for the caller."""

    def __init__(self, error_type: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.error_type, self.message, self.headers = error_type, message, headers

    @property
    def status(self) -> int:
        """HTTP status code."""
        return STATUS[self.error_type]

    def to_json(self, path: str) -> dict[str, Any]:
        """Return the body, in the shape that callers of this path read."""
        if not path.startswith("/v1/"):
            return {"error": self.message, "error_type": self.error_type}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.error_type}}

    @classmethod
    def from_validation(cls, error: ErrorDetails) -> "Refusal":
        """Return what to answer to a body that is no such request; the body itself is not repeated."""
        kind, where = error["type"], ".".join(str(part) for part in error["loc"][1:])
        prefix = f"{where}: " if where else ""
        if kind == "json_invalid":
            return cls("InvalidJson", f"expected a JSON object, got {error.get('ctx', {}).get('error', 'none')}; "
                                      f"correct the body")  # fmt: skip
        if kind == "missing":
            return cls("Validation", f"{prefix or 'body: '}expected a value, got none; the fields are in /docs")
        if kind == "extra_forbidden":
            return cls("Validation", f"{prefix}expected a field of this request, which are in /docs, got another one; "
                                     f"correct the name or leave it out")  # fmt: skip
        if kind in ("model_attributes_type", "model_type"):
            return cls("Validation", "expected a JSON object sent with Content-Type: application/json, got something "
                                     "else; correct the body or the header")  # fmt: skip
        message = error["msg"]
        return cls(kind if kind in STATUS else "Validation", prefix + message[0].lower() + message[1:])


def _check_text(value: object) -> object:
    if not isinstance(value, str):
        got = _JSON_KIND.get(type(value).__name__, "something else")
        raise PydanticCustomError("Validation", "expected a string, got {got}; send the text", {"got": got})
    if not value:
        raise PydanticCustomError("Empty", "expected a text, got one of length 0; send one that says something")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        where = {"at": error.start}
        raise PydanticCustomError(
            "Tokenizer", "expected Unicode text, got a lone surrogate at {at}; send whole characters", where
        ) from None
    return value


def _check_texts(value: object) -> object:
    """Return a list of texts from one or many; the first that is wrong is the error."""
    if not isinstance(value, str | list):
        _refuse_token_ids(value)
        got = _JSON_KIND.get(type(value).__name__, "something else")
        raise PydanticCustomError("Validation", "expected a string or a list of strings, got {got}", {"got": got})
    texts = value if isinstance(value, list) else [value]
    if not texts:
        raise PydanticCustomError("Empty", "expected at least one text, got an empty list")
    for text in texts:
        _refuse_token_ids(text[0] if isinstance(text, list) and text else text)
        _check_text(text)
    return texts


def _refuse_token_ids(value: object) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        raise PydanticCustomError(
            "Validation",
            "expected text, got integers: token ids of another model's tokenizer mean nothing to this one; send the "
            "text itself (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))",
        )


_TEXT_SCHEMA = {"type": "string", "minLength": 1}
Text = Annotated[
    str,
    BeforeValidator(_check_text),
    WithJsonSchema(_TEXT_SCHEMA | {"description": "The text; /info has the limits."}),
]
Texts = Annotated[
    list[str],
    BeforeValidator(_check_texts),
    WithJsonSchema({"anyOf": [_TEXT_SCHEMA, {"type": "array", "items": _TEXT_SCHEMA, "minItems": 1}],
                    "description": "One text or a list of them."}),
]  # fmt: skip
Truncate = Annotated[
    bool,
    Field(strict=True, description="Read only the beginning of a text that is longer than the model reads at once."),
]
OffsetUnit = Annotated[
    Literal["codepoints", "utf16"],
    Field(description="What start and end count: code points, as Python does, or UTF-16 units, as JavaScript does."),
]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ParseRequest(_Request):
    """Rasa's request. `message_id` and `token`, which Rasa's own client sends, are accepted and not used."""

    text: Text
    truncate: Truncate = False
    offsets: OffsetUnit = "codepoints"
    message_id: str | None = None
    token: str | None = None


class EmbedRequest(_Request):
    """The request of text-embeddings-inference."""

    inputs: Texts
    normalize: bool = Field(default=True, strict=True, description="Scale each vector to length 1.")
    truncate: Truncate = False


class OpenAIRequest(_Request):
    """OpenAI's request. `model` is not looked at: there is one; nor is `user`. Vectors have length 1."""

    input: Texts
    model: str = ""
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = None
    truncate: Truncate = False


class Intent(BaseModel):
    """An intent and its probability."""

    name: str
    confidence: float


class FoundEntity(BaseModel):
    """One entity; `end` is exclusive, `value` the characters of the text."""

    start: int
    end: int
    value: str
    entity: str
    confidence_entity: float


class ParseResponse(BaseModel):
    """Rasa's answer; `dropped_tokens` at the end of the text were not read."""

    text: str
    intent: Intent
    entities: list[FoundEntity]
    intent_ranking: list[Intent]
    dropped_tokens: int


class TokenPiece(BaseModel):
    """One token; `special` is its name if it stands for no text."""

    id: int
    start: int
    end: int
    special: str | None


class Neighbour(BaseModel):
    """A known utterance; `similarity` is the cosine of the embeddings, 1 = closest."""

    text: str
    intent: str | None
    similarity: float


class InspectResponse(BaseModel):
    """Everything the playground shows; `parse` is null where the model has no heads."""

    parse: ParseResponse | None
    tokens: list[TokenPiece]
    dropped_tokens: int
    neighbours: list[Neighbour]
    time_ms: float


class EmbeddingRow(BaseModel):
    """One vector: numbers, or base64 of float32 little-endian."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class OpenAIResponse(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"]
    data: list[EmbeddingRow]
    model: str
    usage: Usage


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]


class Info(BaseModel):
    """The model and what the server accepts."""

    model: str
    weebill: str
    embedding_dim: int
    max_tokens: int
    vocab_size: int
    intents: list[str]
    entities: list[str]
    examples: int
    suggestions: list[str]
    on_overflow: Overflow
    limits: Limits


class ErrorBody(BaseModel):
    """A refusal."""

    error: str
    error_type: str


class OpenAIErrorDetail(BaseModel):
    """What was wrong; `code` is weebill's error_type."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorBody(BaseModel):
    """A refusal in OpenAI's shape."""

    error: OpenAIErrorDetail
