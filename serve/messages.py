"""What a visitor and the server say to each other. What is not described here is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter

from live2diff_trt.bundle.schedule import MOST_STEPS
from live2diff_trt.runtime.prompt_blend import Interpolation, Unit
from live2diff_trt.runtime.similar_image_filter import SimilarImageFilter
from live2diff_trt.runtime.styles import LONGEST_NAME

MOST_PROMPTS = 8
LONGEST_PROMPT = 1000
"""Characters."""


def _as_whole(value: object) -> object:
    """Return JSON's 7.0 as the integer that it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Seed = Annotated[int, Field(ge=0, lt=2**53), BeforeValidator(_as_whole)]  # what every JSON reader keeps exactly
Step = Annotated[int, Field(ge=0, le=999), BeforeValidator(_as_whole)]
FrameNumber = Annotated[int, Field(ge=0, lt=2**32), BeforeValidator(_as_whole)]
FrameCount = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_as_whole)]


class Message(BaseModel):
    """Base of all: nothing beside what is described, no number that is none, no text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class WeightedPrompt(Message):
    """One prompt of a blend, and its share; only the shares' ratios matter."""

    text: str = Field(max_length=LONGEST_PROMPT)
    weight: float = Field(default=1.0, ge=0, le=1000)


class TransitionLength(Message):
    """How long a prompt takes to replace the one before; frames are whole numbers."""

    length: float = Field(gt=0, le=3600)
    unit: Unit = "seconds"
    interpolation: Interpolation = "linear"


class SetPrompt(Message):
    """What the video should look like: one prompt, or a blend of several; at once, or in time."""

    type: Literal["prompt"]
    prompts: list[WeightedPrompt] = Field(min_length=1, max_length=MOST_PROMPTS)
    interpolation: Interpolation = "linear"
    transition: TransitionLength | None = None


class SetSeed(Message):
    """The seed of the noise."""

    type: Literal["seed"]
    seed: Seed


class SetStepList(Message):
    """Denoising steps, noisiest first: rising indices into LCM's timesteps."""

    type: Literal["step_list"]
    step_list: list[Step] = Field(min_length=1, max_length=MOST_STEPS)


class SetStrength(Message):
    """How much of each frame is repainted."""

    type: Literal["strength"]
    strength: float = Field(gt=0, le=1)


class SetStyle(Message):
    """Which weights paint: a style that the server offers, by its name; null: the bundle's own."""

    type: Literal["style"]
    style: str | None = Field(max_length=LONGEST_NAME)


class SetSimilarImageFilter(Message):
    """Whether frames like the last one are skipped."""

    type: Literal["similar_image_filter"]
    enabled: bool
    threshold: float = Field(default=SimilarImageFilter.threshold, ge=0, lt=1)
    maximum_skipped: FrameCount = SimilarImageFilter.maximum_skipped


class SetRewarmOnCut(Message):
    """Whether the stream begins anew where the video cuts to another scene."""

    type: Literal["rewarm_on_cut"]
    enabled: bool


class Rewarm(Message):
    """Begin anew with the next frames."""

    type: Literal["rewarm"]


class Pause(Message):
    """Freeze the picture."""

    type: Literal["pause"]


class Resume(Message):
    """Go on."""

    type: Literal["resume"]


Control = Annotated[
    SetPrompt
    | SetSeed
    | SetStepList
    | SetStrength
    | SetStyle
    | SetSimilarImageFilter
    | SetRewarmOnCut
    | Rewarm
    | Pause
    | Resume,
    Field(discriminator="type"),
]
"""What changes a session's stream from the next frame on."""


class Shown(Message):
    """A picture came: the next one may be sent. Only WebSocket and JPEG need it."""

    type: Literal["shown"]
    frame: FrameNumber


FromVisitor = Annotated[Control | Shown, Field(discriminator="type")]
from_visitor: TypeAdapter[Control | Shown] = TypeAdapter(FromVisitor)

State = Literal["queued", "warming up", "streaming", "paused", "error"]
Way = Literal["none", "webrtc", "websocket"]


class Status(Message):
    """A session as it is now.

    Latency is from the moment a frame was there to the moment its picture was given to the network: the last 10 s.
    """

    type: Literal["status"] = "status"
    state: State
    place: int = Field(description="In the line: 1 is next, 0 has a seat.")
    waiting: int = Field(description="How many are in the line.")
    way: Way = Field(description="How the pictures go out.")
    fps: float
    latency_ms_p50: float | None
    latency_ms_p99: float | None
    frames_in: int
    frames_out: int
    frames_dropped: int = Field(description="A newer one was there, or the way out was busy.")
    frames_damaged: int
    step_list: list[int]
    style: str | None = Field(description="The name of the style in effect; null: the bundle's own weights.")


class StreamDescription(Message):
    """What a session of this server is, before it is opened."""

    width: int
    height: int
    step_list: list[int]
    max_steps: int
    timesteps: int = Field(description="Steps are indices below this.")
    styles: list[str] = Field(description="Names of the styles to choose from.")
    prompt: str
    seed: int
    webrtc: bool
    stun: list[str]
    seats: int
    seats_taken: int
    waiting: int


class Welcome(Message):
    """The first message of a session's WebSocket."""

    type: Literal["welcome"] = "welcome"
    session: str = Field(description="Its name and its key: who has it may change the session.")
    stream: StreamDescription


class Done(Message):
    """A control is in effect from the next frame on."""

    type: Literal["done"] = "done"
    control: str


class Problem(Message):
    """What is wrong, and what to do about it. ``control`` is what was refused, if it was one."""

    type: Literal["refused", "error"]
    control: str | None = None
    problem: str
    remedy: str


class Offer(Message):
    """A WebRTC offer with one video that is sent and received, its candidates gathered."""

    sdp: str = Field(min_length=1, max_length=60_000)


class Answer(Message):
    """The answer to an offer."""

    sdp: str


class Health(Message):
    """Whether the server works, and how busy it is."""

    status: Literal["ok"] = "ok"
    version: str
    seats: int
    seats_taken: int
    waiting: int
