"""The pipeline of TensorRT: pictures go up, captured graphs make a tick, pictures come down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cuda.core import StreamOptions

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.runtime.device import DeviceMemory
from live2diff_trt.runtime.device_frames import FrameExchange
from live2diff_trt.runtime.device_stages import DeviceStages
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.kv_ring import Array
from live2diff_trt.runtime.lanes import Lanes
from live2diff_trt.runtime.newest_frames import NewestFrames
from live2diff_trt.runtime.opened_plans import OpenedPlans
from live2diff_trt.runtime.pipeline import Pending, Submitted
from live2diff_trt.runtime.plan_weights import PreparedStyle
from live2diff_trt.runtime.prompt import PromptTokenizer
from live2diff_trt.runtime.stream_batch import StreamBatch
from live2diff_trt.runtime.stream_rows import StreamRoom, StreamRows
from live2diff_trt.runtime.styled_parts import StyledParts, close_styled, open_styled
from live2diff_trt.runtime.tick import Tick
from live2diff_trt.runtime.tick_graphs import GraphsOfRows
from live2diff_trt.runtime.unet_session import UNetSession

if TYPE_CHECKING:
    from live2diff_trt.engine.restyle import StyledWeights


FindPlans = Callable[["StyledWeights"], OpenedPlans]
"""Returns plans that hold a style's weights."""


@dataclass(frozen=True)
class SessionParts:
    """Everything that one stream on a GPU consists of.

    Attributes:
        unet: plans, kernels, ring, conditions and all device memory.
        lanes: the streams.
        tokenizer: of the prompt.
        stages: autoencoder and depth.
        newest: the newest frames.
        tick: the order of the work, with the rows in effect.
        exchange: the way in and out.
        spare: a second set of what a style replaces; None: styles are exchanged in place.
    """

    unet: UNetSession
    lanes: Lanes
    tokenizer: PromptTokenizer
    stages: DeviceStages
    newest: NewestFrames
    tick: Tick
    exchange: FrameExchange
    spare: StyledParts | None = None

    def with_styled(self, styled: StyledParts) -> SessionParts:
        """Return the same parts with another set in use; the one that was is the spare then."""
        spare = StyledParts(self.unet, self.stages, self.tick)
        return replace(self, unet=styled.unet, stages=styled.stages, tick=styled.tick, spare=spare)

    @property
    def memory(self) -> DeviceMemory:
        """The device's memory."""
        return self.unet.memory

    def close(self) -> None:
        """Free everything, once nothing is on its way."""
        self.memory.device.set_current()
        self.lanes.sync()
        self.exchange.close()
        if self.spare is not None:
            self.spare.unet.close_plans()
        self.unet.close()


@dataclass(frozen=True)
class PendingPictures:
    """The pictures of several ticks or frames, in order."""

    pictures: Sequence[Pending] = field(default_factory=tuple)

    def wait(self) -> Sequence[Any]:
        """Return them once all are complete."""
        return [picture for pending in self.pictures for picture in pending.wait()]


class CudaPipeline:
    """One stream on a GPU.

    Attributes:
        parts: what it consists of.
        room: how many denoising steps, and which kinds of guidance, there is room for.
        guidance: in effect.

    Inside a tick the host computes integers and launches: what fetches them and the picture, one graph or, where lanes
    overlap, one for each part of a tick, and what delivers the finished picture. It neither reads the device nor waits
    for it, and copies no picture that lies in a frame of ``empty_frame``.
    """

    def __init__(
        self,
        parts: SessionParts,
        spec: StreamSpec,
        seed: int,
        guidance: Guidance = NO_GUIDANCE,
        *,
        room: StreamRoom,
        find_plans: FindPlans | None = None,
    ) -> None:
        self._find_plans = find_plans
        self._prepared: StyledParts | None = None  # contexts of shared plans that are not in use yet
        self.spec = spec
        self.room = room
        self.parts = parts
        self.set_seed(seed)
        self._negative_prompt: str | None = None
        self.set_guidance(guidance)
        self._rows = StreamRows(spec.steps, guidance.kind)
        self._batch = StreamBatch(spec.steps)
        # Run once before it is recorded, so that everything late is loaded. That waits for all that opening enqueued,
        # so no lane has to; ticks run only behind warm-up's fork.
        of_kinds = [StreamRows(spec.steps, kind) for kind in sorted(room.kinds)]
        for tick in (parts.tick, *(() if parts.spare is None else (parts.spare.tick,))):
            tick.enqueue_once(parts.memory.stream, of_kinds)
        parts.memory.stream.sync()
        self._graphs = self._capture_all(parts.tick, self._rows, of_kinds)
        self._held: PreparedStyle | None = None  # by the plans in use, where styles are exchanged in place
        self._is_warm = False
        self._closed = False
        self.reset()

    @property
    def full_ahead(self) -> int:
        """How many frames keep every lane busy while one more is waited for."""
        return self.parts.lanes.count

    @property
    def in_flight(self) -> int:
        """Frames that were submitted and have not left."""
        return self._batch.in_flight

    def empty_frame(self, height: int, width: int) -> Image:
        """Return page-locked memory for a frame, uint8 [height, width, 3]; it outlives the pipeline."""
        self._make_current()
        return self.parts.exchange.empty_frame(height, width)

    def encode_prompt(self, prompt: str) -> Array:
        """Return a prompt's text embeddings, [1, tokens, channels]. Waits for the denoise lane, to bring them back."""
        self._make_current()
        return self.parts.unet.conditions.encode(self.parts.tokenizer.tokenize(prompt))

    def set_text_embeddings(self, embeddings: Array) -> None:
        """Compute keys and values of text embeddings, [1, tokens, channels], in the denoise lane's order: no waiting.

        They act from the next tick on.
        """
        self._make_current()
        self.parts.unet.conditions.set_text_embeddings(embeddings)

    def set_seed(self, seed: int) -> None:
        """Draw other noise, from the next tick on."""
        self.parts.exchange.set_seed(seed % 2**64)  # any integer's lowest bits, as bundle/noise.py takes them

    def prepare_rows(self, step_list: tuple[int, ...], kind: GuidanceKind) -> None:
        """Capture the ticks of other rows, while frames are on their way: nothing runs, and nothing is waited for."""
        self._make_current()
        rows = StreamRows(len(step_list), kind)
        self._graphs.prepare(rows, lambda: self.parts.tick.with_rows(rows).capture(self.parts.memory))

    def change_rows(self, step_list: tuple[int, ...], guidance: Guidance) -> None:
        """Go on with rows that were prepared, warmed up from the newest frames. Waits for the device."""
        self._make_current()
        self.prepare_rows(step_list, guidance.kind)  # anew, where other plans are in use by now
        streamed = int(self.parts.unet.ring.window.counts[0])
        self.spec = self.spec.with_step_list(step_list)
        self._rows = StreamRows(len(step_list), guidance.kind)
        self.parts = replace(self.parts, tick=self.parts.tick.with_rows(self._rows))
        self.parts.unet.set_rows(self.spec, self._rows)
        self.set_guidance(guidance)
        self._graphs.take(self._rows)
        self._batch = StreamBatch(self.spec.steps)
        self.parts.unet.ring.reset(self.parts.memory)
        if self._is_warm:
            self._warm_up_again(streamed)

    def _warm_up_again(self, streamed: int) -> None:
        """Fill every row's sink from the newest frames, with noise of the present seed, which a record brings."""
        lanes, exchange = self.parts.lanes, self.parts.exchange
        slot = exchange.bring_in_nothing()
        exchange.fetch(slot)
        exchange.finish(slot, lanes.enter)
        lanes.join()
        self.parts.newest.settle(lanes.denoise, streamed)
        self.parts.tick.warm_up_again(lanes.denoise, self._graphs.run_pass)
        lanes.fork()

    def prepare_style(self, weights: StyledWeights, check: Callable[[], None]) -> Callable[[], None]:
        """Let the spare plans hold a style, and capture them, beside frames on their way; return what swaps both.

        Without spare plans, return what exchanges the weights of those in use. Plans that can't be refitted are built
        anew first, if that was never done for this style; the log says how far that is. Where streams share plans of
        each style, make contexts of those, and return what goes on with them.
        """
        check()
        self._make_current()
        if self._find_plans is not None:
            return self._prepare_contexts(weights, self._find_plans(weights))
        spare = self.parts.spare
        if spare is None:
            style = self.parts.unet.opened.weights.prepare(weights, check)
            return lambda: self._exchange_in_place(style)
        held = spare.unet.opened.weights
        style = held.prepare(weights, check)
        stream = self.parts.memory.device.create_stream(options=StreamOptions(priority=0))
        held.exchange(style, spare.unet.plans, stream)
        if held.must_rehearse:
            return lambda: self._swap_in(spare, weights)
        graphs = self._capture_all(spare.tick, self._rows)
        return lambda: self._swap_in(spare, weights, graphs)

    def _prepare_contexts(self, weights: StyledWeights, opened: OpenedPlans) -> Callable[[], None]:
        """Make contexts of plans that hold a style; return what goes on with them."""
        self._drop_prepared()
        parts = self.parts
        prepared = self._prepared = open_styled(StyledParts(parts.unet, parts.stages, parts.tick), opened)
        return lambda: self._change_plans(prepared, weights)

    def _swap_in(self, styled: StyledParts, weights: StyledWeights, graphs: GraphsOfRows | None = None) -> None:
        """Go on with plans that hold other weights; those in use until now are the spare ones then. The stream waits.

        Contexts that never ran can't be captured beside frames on their way, whose memory they run over: that is done
        now, if there are no graphs.
        """
        self._make_current()
        self.parts.lanes.sync()
        graphs = graphs or self._rehearse(styled)
        self._graphs.close()
        self._graphs = graphs
        self.parts = self.parts.with_styled(styled)
        self._go_on_with(weights)

    def _change_plans(self, styled: StyledParts, weights: StyledWeights) -> None:
        """Go on with contexts of other plans; those of the plans in use until now are closed. The stream waits."""
        before = self.parts.unet
        self._swap_in(styled, weights)
        self.parts = replace(self.parts, spare=None)
        self._prepared = None
        close_styled(before)

    def _drop_prepared(self) -> None:
        if self._prepared is not None:
            close_styled(self._prepared.unet)
            self._prepared = None

    def _exchange_in_place(self, style: PreparedStyle) -> None:
        """Exchange the weights of the plans in use, and put the old ones back if that fails. The stream waits."""
        self._make_current()
        parts = self.parts
        unet, stream = parts.unet, parts.memory.stream
        parts.lanes.sync()
        self._graphs.close()  # a graph that was captured before must not be launched after it
        try:
            unet.opened.weights.exchange(style, unet.plans, stream)
        except BaseException:
            before = self._held or PreparedStyle(style.weights.without_style())
            unet.opened.weights.exchange(before, unet.plans, stream)
            self._graphs = self._rehearse(parts)
            raise
        self._graphs = self._rehearse(parts)
        self._held = style
        self._go_on_with(style.weights)

    def _go_on_with(self, weights: StyledWeights) -> None:
        tokenizer = self.parts.tokenizer.with_template(weights.prompt_template)
        self.parts = replace(self.parts, tokenizer=tokenizer)
        self._negative_prompt = None  # it was encoded by another text encoder

    def _rehearse(self, parts: SessionParts | StyledParts) -> GraphsOfRows:
        """Run plans that hold other weights once, so that everything late is loaded, and capture them.

        Nothing that outlives a tick is written.
        """
        stages = parts.stages
        stages.embed_depth_latent(self.parts.memory.stream, stages.depth_features)  # warm-up bound it to the UNet's
        parts.unet.rehearse()
        return self._capture_all(parts.tick, self._rows)

    def _capture_all(self, tick: Tick, rows: StreamRows, others: Sequence[StreamRows] = ()) -> GraphsOfRows:
        """Capture a tick of the rows that will be in effect, and of others, and a pass of warm-up."""
        memory = self.parts.memory
        captured = {one: tick.with_rows(one).capture(memory) for one in dict.fromkeys((rows, *others))}
        return GraphsOfRows(rows, captured, tick.capture_warm_up(memory))

    def set_guidance(self, guidance: Guidance) -> None:
        """Guide by another scale, delta or negative prompt, from the next tick on. Nothing is waited for."""
        self.guidance = guidance
        if guidance.kind != "none":
            self.parts.exchange.set_guidance(guidance)
        if guidance.asks_the_unet and guidance.negative_prompt != self._negative_prompt:
            self._make_current()
            token_ids = self.parts.tokenizer.tokenize_negative(guidance.negative_prompt)
            self.parts.unet.conditions.set_negative_prompt(token_ids)
            self._negative_prompt = guidance.negative_prompt

    def gather(self, frame: int, image: Any) -> None:
        """Encode one of the first frames and estimate its depth; both are kept on the device until warm-up."""
        self._make_current()
        lane, stages, exchange = self.parts.lanes.enter, self.parts.stages, self.parts.exchange
        slot = exchange.bring_in(image)
        exchange.fetch(slot)
        stages.see(lane)
        stages.encode(lane, stages.clean.row(frame))
        stages.estimate_depth(lane)
        stages.keep_depth(lane, frame)
        exchange.finish(slot, lane)

    def warm_up(self, frames: int) -> Pending:
        """Denoise the gathered frames together and fill every row's sink; a short clip repeats its last frame.

        It takes plans and memory of every lane, so it is on the denoise lane while the others wait.
        """
        self._make_current()
        lanes, stages, exchange = self.parts.lanes, self.parts.stages, self.parts.exchange
        lanes.join()
        for missing in range(frames, self.spec.sink):
            stages.repeat_first(lanes.denoise, frames - 1, missing)
        self.parts.tick.warm_up(lanes.denoise, self._graphs.run_pass)
        lanes.fork()
        self._is_warm = True
        pictures: list[Pending] = []
        for frame in range(frames):
            slot = exchange.take_slot()
            stages.decode(lanes.decode, stages.finished.row(frame))
            pictures.append(exchange.bring_out(slot))
        lanes.decoded.signal()
        return PendingPictures(pictures)

    def tick(self, frame: int | None, image: Any) -> Submitted:
        """Take one frame, or none while draining, and move every frame one step on. Returns without waiting."""
        self._make_current()
        lanes, exchange, window = self.parts.lanes, self.parts.exchange, self.parts.unet.ring.window
        if frame is None:
            slot = exchange.bring_in_nothing()
        else:
            slot = exchange.bring_in(image)
            self._batch.enter(frame)
        slot.record.write_rows(self._rows.spread(self._batch.frames), window.view())
        exchange.fetch(slot)
        self._graphs.launch()
        window.advance(self._rows.spread(self._batch.active))
        finished = self._batch.advance()
        if finished is None:
            exchange.finish(slot, lanes.decode)
            return Submitted(None, PendingPictures())
        return Submitted(finished, exchange.bring_out(slot))

    def reset(self) -> None:
        """Forget every frame."""
        self._make_current()
        self._is_warm = False
        self._batch.reset()
        self.parts.unet.ring.reset(self.parts.memory)

    def close(self) -> None:
        """Free everything on the device; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._make_current()
            self._graphs.close()
            self._drop_prepared()
            self.parts.close()

    def _make_current(self) -> None:
        self.parts.memory.device.set_current()
