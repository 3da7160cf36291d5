"""What does a request ask for? Its fields, checked, as the engine takes them."""

import json
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from indexer.filter_text import MOST_CHARACTERS
from retrieval.answer import Refinements
from retrieval.records import Box, read_sides
from retrieval.service.bodies import parse_json

_NUL = "\x00"
_MOST_DEPTH = 100  # of metadata, which is written into answers that are nested themselves


def _where(said: Any) -> Any:
    """Conditions come as text; those in JSON as the dict that they are. A search takes as long as they are large."""
    try:
        characters = len(said if isinstance(said, str) else json.dumps(said))
    except RecursionError as error:
        raise ValueError("nested too deep; write it flatter") from error
    if characters > MOST_CHARACTERS:
        raise ValueError(f"{characters} characters; at most {MOST_CHARACTERS} are read, so ask for less at once")
    if isinstance(said, str) and said.lstrip().startswith("{"):
        try:
            return parse_json(said)
        except ValueError as error:
            raise ValueError(f"begins with a brace and is not JSON: {error}") from error
    return said


def _json(said: Any) -> Any:
    """JSON, where it comes as the text of a form's field; none where that is empty."""
    if not isinstance(said, str):
        return said
    try:
        return parse_json(said or "null")
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error


def _kept(said: Any, depth: int = 0) -> Any:
    """JSON that can be kept, and read by whoever reads JSON."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"nested more than {_MOST_DEPTH} deep; write it flatter")
    if isinstance(said, dict):
        for name, value in said.items():
            _kept(name)
            _kept(value, depth + 1)
    elif isinstance(said, list):
        for value in said:
            _kept(value, depth + 1)
    elif isinstance(said, float) and not math.isfinite(said):
        raise ValueError(f"{said} is no JSON number; leave it out, or give null")
    elif isinstance(said, str) and not said.isascii():
        try:
            said.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{said[error.start]!a} is half of a character") from error
    return said


def _sides(said: Any) -> Any:
    if said is None or isinstance(said, Box):
        return said
    sides = read_sides(said)
    if sides is None or min(sides[2:]) <= 0:
        raise ValueError("four numbers are needed: left, top, width and height in pixels, the last two above 0")
    return Box(*sides)


def _without_nul(said: str) -> str:
    if _NUL in said:
        raise ValueError("holds a NUL character")
    return said


Metadata = Annotated[dict[str, Any], AfterValidator(_kept)]
Key = Annotated[str, Field(min_length=1, max_length=4096, examples=["shoes/7.jpg"]), AfterValidator(_without_nul)]
SidesOfBox = Annotated[
    Any,
    BeforeValidator(_sides),
    Field(
        description="The part of the picture to look at, in its pixels: left, top, width, height.",
        json_schema_extra={"type": ["string", "array", "null"], "examples": ["40,60,200,180"]},
    ),
]


class SearchOptions(BaseModel):
    """What a search may ask for."""

    model_config = ConfigDict(extra="forbid")

    k: int = Field(10, ge=1, le=10_000, description="Hits at most.")
    offset: int = Field(0, ge=0, le=1_000_000, description="Leave out the best so many.")
    where: Annotated[str | dict[str, Any] | None, BeforeValidator(_where)] = Field(
        None,
        description="Only pictures whose attributes meet this condition: text, or JSON.",
        examples=["price < 50 and colour in ('red', 'blue')"],
    )
    group_by: str | None = Field(
        None, description="Of pictures with the same value of this field, only the best.", examples=["product_id"]
    )
    min_score: float | None = Field(None, ge=-1, le=1, description="No hit with a lower cosine.")
    min_probability: float | None = Field(None, ge=0, le=1, description="No hit that is less likely the same product.")
    exclude: list[Key] = Field(
        default_factory=list, max_length=1000, description="Keys that must not be among the hits."
    )
    like: list[Key] = Field(default_factory=list, max_length=100, description="Keys of pictures to move towards.")
    unlike: list[Key] = Field(default_factory=list, max_length=100, description="Keys of pictures to move away from.")
    dedup: float | None = Field(None, gt=0, le=1, description="Leave out hits this close to a better one.")
    expand: int = Field(0, ge=0, le=100, description="Search again, moved towards so many of the nearest.")
    rerank: bool = Field(False, description="Order the first 100 hits by what their neighbourhoods have in common.")
    with_vector: bool = Field(False, description="Say how the model sees the picture as well, to search with again.")
    box: SidesOfBox = None
    min_generation: int | None = Field(
        None, ge=0, le=2**62, description="Answer from this generation or a later one, as an upsert returned it."
    )

    def refinements(self) -> Refinements:
        """As the engine takes them."""
        return Refinements(
            where=self.where, group_by=self.group_by, offset=self.offset, min_score=self.min_score,
            min_probability=self.min_probability, exclude=self.exclude, like=self.like, unlike=self.unlike,
            dedup=self.dedup, expand=self.expand, rerank=self.rerank,
        )  # fmt: skip

    def alike(self) -> str:
        """Equal for searches that different pictures may be answered by at once; a text, in which true is not 1."""
        return repr((self.k, self.refinements(), self.with_vector))


class VectorSearch(SearchOptions):
    """A search by a vector, or by pictures of the index alone."""

    vector: list[float] | None = Field(None, max_length=65_536, description="A unit vector of the index's model.")
    model: str | None = Field(None, max_length=200, description="The fingerprint of the model that made the vector.")


class MatchOptions(BaseModel):
    """What a comparison may ask for."""

    model_config = ConfigDict(extra="forbid")

    false_accept_rate: float | None = Field(
        None, gt=0, lt=1, description="Decide, at the score that at most this share of different products reaches."
    )


class EmbedOptions(BaseModel):
    """How a picture is embedded."""

    model_config = ConfigDict(extra="forbid")

    box: SidesOfBox = None


class AttributesOfPicture(BaseModel):
    """What is known of a picture."""

    model_config = ConfigDict(extra="forbid")

    product_id: str | None = Field(None, max_length=4096)
    label: str | None = Field(None, max_length=4096)
    metadata: Metadata | None = None


class Upsert(AttributesOfPicture):
    """What comes with a picture."""

    metadata: Annotated[Metadata | None, BeforeValidator(_json)] = None
    box: SidesOfBox = None


class FeedbackBody(BaseModel):
    """What somebody says of a hit."""

    model_config = ConfigDict(extra="forbid")

    query_key: Key = Field(description="Of the picture of the index that was searched with.")
    key: Key = Field(description="Of the hit.")
    relevant: bool
    source: str | None = Field(None, max_length=200, description="Who says so, such as a customer's number.")


class SessionBody(BaseModel):
    """What is exchanged for a cookie."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(max_length=1024, description="An API key.")
