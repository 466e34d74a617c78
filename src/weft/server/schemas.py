"""Requests and responses as OpenAI documents them, and Weft's own.

Fields that OpenAI knows and Weft can't serve are refused when they ask for something; those that only describe the
request (``metadata``, ``store``, ...) are passed over. Fields that nobody knows are refused as well.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from weft.charsets import HALF
from weft.options import near
from weft.weaving import ReadingMode

MAX_CHOICES = 8
"""Replies to one request."""
MANY = 1000
"""Messages of a request, and parts of a message, at which looking at them ends; the server's own limits are lower."""
MAX_LOGPROBS = 20
"""Likeliest tokens at each place whose log-probabilities are told."""


_SETTLED = frozenset(
    {"messages", "tools", "documents", "chat_template", "add_generation_prompt", "continue_final_message"}
)
"""What of a chat template's values is not a client's to set."""
_DESCRIBE = frozenset(
    {"metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
    | {"prompt_cache_options", "prediction"}
)
"""Fields of OpenAI's that change no word of a reply."""
_IDLE: dict[str, tuple[Any, ...]] = {
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "modalities": (["text"],),
    "best_of": (1,),
    "echo": (False,),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
}
"""Fields of OpenAI's and of other servers' that ask for what is done anyway, with the values with which they do."""


def _may_be_null(schema: dict[str, Any]) -> None:
    """Say in a schema that what may be left out may be null as well."""
    fields, required = schema.get("properties", {}), schema.get("required", [])
    for name in fields.keys() - set(required):
        fields[name] = {"anyOf": [fields[name], {"type": "null"}]}


def _whole(given: Any) -> Any:
    """What was given, if no text in it holds half a character."""
    if isinstance(given, str) and not given.isascii() and HALF.search(given):
        raise ValueError("it holds half a character (a lone surrogate)")
    for one in [*given, *given.values()] if isinstance(given, dict) else given if isinstance(given, list) else ():
        _whole(one)
    return given


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, json_schema_extra=_may_be_null)

    @model_validator(mode="before")
    @classmethod
    def _as_sent(cls, given: Any) -> Any:
        """Null stands for what is left out; halves of characters, which JSON can hold, no tokenizer takes."""
        if not isinstance(given, dict):
            return given
        for name, value in given.items():
            if isinstance(value, str) and not value.isascii() and HALF.search(value):
                raise ValueError(f"{name} holds half a character (a lone surrogate)")
        return {name: value for name, value in given.items() if value is not None}


class _Asked(_Given):
    @model_validator(mode="before")
    @classmethod
    def _understood(cls, given: Any) -> Any:
        """What asks for something that the server does not know is refused; what only describes a request is not."""
        if isinstance(given, dict):
            for name, value in given.items():
                if name not in cls.model_fields and name not in _DESCRIBE and value not in (None, *_IDLE.get(name, ())):
                    raise ValueError(f"{name!r:.100} is not known here; {near(name[:50], cls.model_fields)}")
        return given


class TextPart(_Given):
    """Words."""

    type: Literal["text"]
    text: str


class ImageUrl(_Given):
    """Where a picture is: a data URL, or an http(s) URL of a host that the server allows."""

    url: str = Field(min_length=1, examples=["data:image/jpeg;base64,..."])


class ImagePart(_Given):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class DocumentPart(_Given):
    """A text to read, of any length."""

    type: Literal["document"]
    text: str = Field(min_length=1)
    name: str = Field(default="document", max_length=300)


class MemoryPart(_Given):
    """A picture or a text that ``/v1/memories`` has read."""

    type: Literal["memory"]
    id: str = Field(max_length=100)


Part = Annotated[TextPart | ImagePart | DocumentPart | MemoryPart, Field(discriminator="type")]


class Message(_Given):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(max_length=MANY, fail_fast=True)] = ""
    name: str | None = Field(default=None, max_length=300, description="Who speaks, for the chat template.")
    reasoning_content: str | None = Field(default=None, description="What the assistant thought, for the template.")
    tool_calls: list[dict[str, Any]] | None = Field(
        default=None, max_length=MANY, description="Tools that the assistant called, for the template."
    )
    tool_call_id: str | None = Field(default=None, max_length=300, description="The call that a tool answers.")

    @field_validator("tool_calls")
    @classmethod
    def _of_whole_characters(cls, given: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        return _whole(given)

    @property
    def more(self) -> dict[str, Any]:
        """What the chat template is given beside role and content."""
        return self.model_dump(include={"name", "reasoning_content", "tool_calls", "tool_call_id"}, exclude_none=True)

    @model_validator(mode="after")
    def _only_users_show(self) -> Message:
        shows = not isinstance(self.content, str) and any(not isinstance(part, TextPart) for part in self.content)
        if shows and self.role != "user":
            raise ValueError(f"a message of the {self.role} holds text only; pictures and documents are the user's")
        return self


class StreamOptions(_Given):
    """What a stream holds beside the reply."""

    include_usage: bool = False


class ResponseFormat(_Given):
    """The form of a reply: plain text."""

    type: Literal["text"]


class ChatRequest(_Asked):
    """What ``POST /v1/chat/completions`` is given."""

    model: str = Field(max_length=200, examples=["weft"])
    messages: list[Message] = Field(min_length=1, max_length=MANY, fail_fast=True)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    temperature: float = Field(default=0.0, ge=0, le=2, description="0, the default, for the likeliest words.")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    response_format: ResponseFormat | None = None
    user: str | None = Field(default=None, max_length=300)
    knowledge: str | None = Field(default=None, max_length=300, description="A knowledge base to answer from.")
    passages: int = Field(default=5, ge=1, le=16, description="Passages of it that are looked up.")
    reading: ReadingMode | None = Field(
        default=None, description="How documents are read; by default as measured best for the model."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        default=None, description="What the chat template takes beside messages, as enable_thinking."
    )
    tools: list[Any] | None = Field(default=None, description="Not served.")
    functions: list[Any] | None = Field(default=None, description="Not served.")
    top_k: int = Field(default=0, ge=-1, lt=2**31, description="Draw among so many; 0 or -1 for all.")
    min_p: float = Field(default=0.0, ge=0, le=1, description="Least share of the likeliest word's probability.")
    repetition_penalty: float = Field(
        default=1.0, gt=0, le=10, description="Above 1 for fewer repetitions, of words of the prompt as well."
    )
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        default=None, description="What is added to the logits of tokens, by their numbers."
    )

    @field_validator("logit_bias")
    @classmethod
    def _by_token(cls, given: dict[str, float] | None) -> dict[str, float] | None:
        """Tokens are numbers; how many there are, the model knows."""
        wrong = next((name for name in given or () if not re.fullmatch("[0-9]{1,9}", name)), None)
        if wrong is not None:
            raise ValueError(f"{wrong!r:.100} is no token; give the number of one")
        return given

    @field_validator("tools", "functions")
    @classmethod
    def _not_served(cls, asked: Any) -> None:
        """What can't be served is refused rather than passed over."""
        if asked:
            raise ValueError("Weft does not serve this; leave it out")

    @field_validator("chat_template_kwargs")
    @classmethod
    def _for_the_template(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        """How a reply is rendered is the server's to say, and tools are not served."""
        settled = _SETTLED & (given or {}).keys()
        if settled:
            raise ValueError(f"{min(settled)} can't be set; leave it out")
        return _whole(given)

    @field_validator("stop")
    @classmethod
    def _few_stops(cls, stop: str | list[str] | None) -> list[str]:
        stops = [stop] if isinstance(stop, str) else stop or []
        if len(stops) > 4 or any(not 0 < len(one) <= 200 for one in stops):
            raise ValueError("give at most 4 texts, each of 1 to 200 characters")
        return stops

    @model_validator(mode="after")
    def _whose_turn(self) -> ChatRequest:
        if self.messages[-1].role not in ("user", "tool"):
            raise ValueError("the last message must be the user's")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self

    @property
    def longest(self) -> int | None:
        """Tokens that a reply may have."""
        return self.max_completion_tokens or self.max_tokens


class MemoryRequest(_Asked):
    """What ``POST /v1/memories`` is given: a picture or a text."""

    image_url: ImageUrl | None = None
    text: str | None = Field(default=None, min_length=1)
    name: str = Field(default="document", max_length=300)

    @model_validator(mode="after")
    def _one_of_both(self) -> MemoryRequest:
        if (self.image_url is None) == (self.text is None):
            raise ValueError("give either image_url or text")
        return self


class Memory(BaseModel):
    """A picture or a text that has been read."""

    id: str
    object: Literal["memory"] = "memory"
    kind: Literal["picture", "text"]
    items: int = Field(description="What it is read as: one picture, or the passages of a text.")
    tokens: int = Field(description="Tokens of all items together.")
    bytes: int = Field(description="Bytes that keys and values take.")


class Model(BaseModel):
    """A model that can be asked."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "weft"


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class Knowledge(BaseModel):
    """A knowledge base that can be asked."""

    id: str
    object: Literal["knowledge"] = "knowledge"


class KnowledgeBases(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Knowledge]


class Citation(BaseModel):
    """A passage that a reply leans on."""

    document: int = Field(description="Its place among the documents of the explanation.")
    name: str
    start: int = Field(description="Where the quote begins in its document, in characters.")
    end: int
    quote: str
    weight: float


class TokenLogprob(BaseModel):
    """A token and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class SaidLogprob(TokenLogprob):
    """A token of a reply, and what else was likely at its place."""

    top_logprobs: list[TokenLogprob]


class Logprobs(BaseModel):
    """The tokens of a reply, or of a part of it."""

    content: list[SaidLogprob]
    refusal: None = None


class Usage(BaseModel):
    """Tokens that were read and said."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ReplyMessage(BaseModel):
    """A reply."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    citations: list[Citation] | None = None


class Choice(BaseModel):
    """One of the replies to a request."""

    index: int
    message: ReplyMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """The replies to a request."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Word(BaseModel):
    """A word of a reply, and where it stands there, in characters."""

    text: str
    start: int
    end: int


class SeenPicture(BaseModel):
    """What the words need of a picture: by how much less likely they are without regions of it."""

    width: int
    height: int
    patches: list[tuple[float, float, float, float]] = Field(description="Left, top, right, bottom, in pixels.")
    weights: list[list[float]] = Field(
        description="For each word how much of what it needs lies on each patch; together one, or zeros if no region "
        "matters to it."
    )
    falls: list[float] = Field(
        description="For each word by how much its log-probability falls without the region that it needs most."
    )
    matters: list[bool] = Field(description="For each word whether some region of the picture matters to it.")


class SentenceShare(BaseModel):
    """A sentence, by where it stands in its document, and its share of what the words leaned on."""

    start: int
    end: int
    share: float


class ReadPassage(BaseModel):
    """A passage that was read, and its share of what the words leaned on."""

    name: str
    part: str
    start: int
    end: int
    text: str
    share: float
    sentences: list[SentenceShare]


class Explanation(BaseModel):
    """What a finished reply needed of pictures and leaned on in documents."""

    id: str
    object: Literal["explanation"] = "explanation"
    text: str
    words: list[Word]
    pictures: list[SeenPicture]
    documents: list[ReadPassage]


class Document(BaseModel):
    """A document, and the sentence of it that a reply leans on most."""

    name: str
    part: str
    text: str
    start: int
    end: int


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Error(BaseModel):
    """An error, as OpenAI puts it."""

    error: ErrorFields
