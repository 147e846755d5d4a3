"""A bundle on the emulated GPU, and beside it on the host: what a stream of either makes of the same frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from live2diff_trt.bundle.manifest import Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.engine.plan_manifest import Form
from live2diff_trt.engine.store import StoredPlans
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.guidance import NO_GUIDANCE, Guidance, GuidanceKind
from live2diff_trt.runtime.host_pipeline import HostPipeline
from live2diff_trt.runtime.source import TestPatternSource
from live2diff_trt.runtime.stream import Stream
from live2diff_trt.runtime.stream_rows import StreamRoom
from live2diff_trt.runtime.styles import StyleFiles
from tests.runtime.emulated_gpu import build_emulated_plans
from tests.runtime.emulated_graphs import GraphCache

STEP_LISTS = {1: (30,), 2: (30, 40), 3: (20, 30, 40), 4: (0, 16, 32, 45), 8: (5, 10, 15, 20, 25, 30, 35, 40)}
PROMPT = "a red fox"

Use = Callable[[Stream], list[FinishedFrame]]


def pictures(count: int, width: int = 80, height: int = 60) -> list[Image]:
    return [frame.image for frame in islice(TestPatternSource(width, height), count)]


def run(frames: Sequence[Any], **options: int) -> Use:
    return lambda stream: list(stream.run(frames, **options))


@dataclass
class Bench:
    """A bundle, its plans as far as they were asked for, and graphs that stay open from test to test."""

    bundle: Path
    root: Path
    graphs: GraphCache
    plans: dict[tuple[Form, int], StoredPlans] = field(default_factory=dict)
    refittable: dict[tuple[Form, int], StoredPlans] = field(default_factory=dict)
    hosts: dict[tuple[int, GuidanceKind], HostPipeline] = field(default_factory=dict)

    def host(self, use: Use, steps: int = 2, seed: int = 0, guidance: Guidance = NO_GUIDANCE) -> list[FinishedFrame]:
        """Do something with a stream of ONNX Runtime."""
        known = steps, guidance.kind
        if known not in self.hosts:
            bundle = Bundle.open(self.bundle)
            spec = bundle.spec.with_step_list(STEP_LISTS[steps])
            room = StreamRoom.of(8, get_args(GuidanceKind))
            self.hosts[known] = HostPipeline(bundle, spec, OnnxRuntimeOptions(threads=1), seed, guidance, room=room)
        in_effect = self.hosts[known].spec.step_list, self.hosts[known].guidance.kind
        if in_effect != (STEP_LISTS[steps], guidance.kind):  # a use before this one changed them
            self.hosts[known].change_rows(STEP_LISTS[steps], guidance)
        stream = Stream(self.hosts[known], styles=StyleFiles(Bundle.open(self.bundle, ())))
        stream.set_guidance(guidance)
        stream.set_seed(seed)
        stream.set_prompt(PROMPT)
        return use(stream)

    def options(self, form: Form, rows: int, **options: Any) -> TensorRTOptions:
        """Build plans, unless they are there."""
        chosen = TensorRTOptions(form=form, rows=rows, plans=self.root, **options)
        plans = self.refittable if chosen.refittable else self.plans
        if (form, rows) not in plans:
            plans[form, rows] = build_emulated_plans(self.bundle, self.root, form, rows, refittable=chosen.refittable)
        return chosen

    def stream(
        self,
        form: Form,
        rows: int,
        steps: int = 2,
        seed: int = 0,
        guidance: Guidance = NO_GUIDANCE,
        *,
        max_steps: int | None = None,
        style: Path | None = None,
        guidance_kinds: tuple[GuidanceKind, ...] = (),
        **options: Any,
    ) -> Stream:
        """Open a stream on the emulated GPU."""
        return Stream.open(
            self.bundle,
            prompt=PROMPT,
            seed=seed,
            step_list=STEP_LISTS[steps],
            max_steps=max_steps,
            guidance=guidance,
            style=style,
            guidance_kinds=guidance_kinds,
            options=self.options(form, rows, **options),
        )

    def device(
        self, use: Use, form: Form, rows: int = 2, steps: int = 2, seed: int = 0, **options: Any
    ) -> list[FinishedFrame]:
        """Do something with a stream on the emulated GPU."""
        with self.stream(form, rows, steps, seed, **options) as stream:
            return use(stream)
