"""The base of every config section, and the types of numbers that sections share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
"""A whole number of at least 1."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""Any number but infinity and nan."""

Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A finite number above 0."""

NotNegative = Annotated[float, Field(ge=0)]
"""A number of at least 0."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A number from 0 to 1."""


class Section(BaseModel):
    """A frozen value that refuses keys which it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
