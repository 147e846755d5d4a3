"""What happens to a frame on the device before and after the UNet: autoencoder and depth, one frame at a time."""

from __future__ import annotations

from collections.abc import Mapping

from cuda.core import Stream

from live2diff_trt.bundle.spec import StreamSpec
from live2diff_trt.engine.plan import Plan
from live2diff_trt.kernels.device_tensor import DeviceTensor
from live2diff_trt.kernels.launchers import Kernels
from live2diff_trt.runtime.copied import copied
from live2diff_trt.runtime.device import DeviceMemory, copy_on_device
from live2diff_trt.runtime.device_layout import BlockLayout, TensorLayout


class DeviceStages:
    """The bundle's autoencoder and depth network as plans. Owner of every picture and latent outside the UNet's rows.

    Every method enqueues on a stream, which may be capturing.

    Attributes:
        clean: [sink, channels, height, width], latents of the first frames until warm-up; then row 0 is the one that
            was encoded last, until it is taken into a row of the UNet.
        x0: [sink, channels, height, width] float32, what the UNet's last pass predicted.
        finished: the same shape in the stream's dtype: latents ready to be decoded.
        depth_latent: [1, channels, height, width], of the depth map that was embedded last.
        depth_features: [channels, height, width], of the frame that was encoded last, once ticks began.
        output: uint8 [height, width, 3], the decoded picture.
    """

    def __init__(
        self,
        memory: DeviceMemory,
        plans: Mapping[str, Plan],
        kernels: Kernels,
        spec: StreamSpec,
        parameters: DeviceTensor,
    ) -> None:
        self._plans = plans
        self._kernels = kernels
        self._parameters = parameters
        layout = stage_layout(spec)
        self._buffers = layout.at(memory.allocate("pictures", layout.nbytes), memory.device_id)
        self.clean, self.x0, self.finished = (self._buffers[name] for name in ("clean", "x0", "finished"))
        self.depth_latent, self.depth_features = (self._buffers[name] for name in ("depth_latent", "depth_features"))
        self.output = self._buffers["output"]

    def with_plans(self, plans: Mapping[str, Plan]) -> DeviceStages:
        """Return these pictures and latents, with other plans between them."""
        return copied(self, _plans=plans)

    def see(self, stream: Stream) -> None:
        """Crop, resize and scale the source picture that the tick's parameters name."""
        self._kernels.preprocess(stream, parameters=self._parameters, image=self._buffers["image"].row(0))

    def encode(self, stream: Stream, latent: DeviceTensor) -> None:
        """Encode the picture that was seen into ``latent``, [channels, height, width]."""
        self._run(stream, "vae_encoder", self._buffers["image"], latent)

    def estimate_depth(self, stream: Stream) -> None:
        """Estimate the depth of the picture that was seen."""
        image, depth_image = self._buffers["image"], self._buffers["depth_image"]
        self._kernels.resize_bilinear(stream, image=image.row(0), resized=depth_image.row(0))
        self._run(stream, "depth", depth_image, self._buffers["depth_map"])

    def keep_depth(self, stream: Stream, frame: int) -> None:
        """Keep the depth map of one of the first frames until warm-up."""
        copy_on_device(stream, self._buffers["depth_maps"].row(frame), self._buffers["depth_map"])

    def repeat_first(self, stream: Stream, source: int, target: int) -> None:
        """Let one of the first frames stand in for another that a short clip does not have."""
        for name in ("clean", "depth_maps"):
            copy_on_device(stream, self._buffers[name].row(target), self._buffers[name].row(source))

    def measure_depth(self, stream: Stream, *, of_first_frames: bool = False) -> None:
        """Find the range of the depth that was estimated, or that of all the first frames together."""
        maps = self._buffers["depth_maps" if of_first_frames else "depth_map"]
        self._kernels.depth_range(stream, depth_maps=maps, depth_range=self._buffers["depth_range"])

    def embed_depth(self, stream: Stream, depth_features: DeviceTensor, first_frame: int | None = None) -> None:
        """Turn an estimated depth map, in the range that was measured, into the UNet's depth features.

        Args:
            stream: where to enqueue.
            depth_features: [channels, height, width]; written.
            first_frame: which of the first frames; None: the one estimated last.
        """
        buffers = self._buffers
        if first_frame is None:
            depth_map = buffers["depth_map"]
        else:
            kept = buffers["depth_maps"].row(first_frame)
            depth_map = kept.reshape(1, *kept.shape)
        self._kernels.depth_to_image(
            stream, depth_maps=depth_map, depth_range=buffers["depth_range"], images=buffers["depth_picture"]
        )
        self._run(stream, "vae_encoder", buffers["depth_picture"], self.depth_latent)
        self.embed_depth_latent(stream, depth_features)

    def embed_depth_latent(self, stream: Stream, depth_features: DeviceTensor) -> None:
        """Turn ``depth_latent`` into the UNet's depth features, [channels, height, width]."""
        self._run(stream, "depth_embed", self.depth_latent, depth_features)

    def decode(self, stream: Stream, latent: DeviceTensor) -> None:
        """Decode a latent, [channels, height, width], into ``output``."""
        self._run(stream, "vae_decoder", latent, self._buffers["decoded"])
        self._kernels.postprocess(stream, image=self._buffers["decoded"].row(0), pixels=self.output)

    def _run(self, stream: Stream, name: str, source: DeviceTensor, target: DeviceTensor) -> None:
        run_stage(stream, self._plans[name], source, target)


def run_stage(stream: Stream, plan: Plan, source: DeviceTensor, target: DeviceTensor) -> None:
    """Enqueue a plan that has one input and one output."""
    for tensor in plan.tensors.values():
        plan.bind(tensor.name, (source if tensor.is_input else target).address)
    plan.enqueue(int(stream.handle))


def stage_layout(spec: StreamSpec) -> BlockLayout:
    """Return where pictures, depth maps and latents lie."""
    side = spec.depth_size
    image = TensorLayout((1, 3, spec.height, spec.width), spec.dtype)
    latents = (spec.sink, *spec.latent_shape)
    return BlockLayout(
        {
            "image": image,
            "depth_image": TensorLayout((1, 3, side, side), spec.dtype),
            "depth_map": TensorLayout((1, side, side), spec.dtype),
            "depth_maps": TensorLayout((spec.sink, side, side), spec.dtype),
            "depth_range": TensorLayout((2,), "float32"),
            "depth_picture": image,
            "depth_latent": TensorLayout((1, *spec.latent_shape), spec.dtype),
            "depth_features": TensorLayout(spec.depth_features_shape, spec.dtype),
            "clean": TensorLayout(latents, spec.dtype),
            "x0": TensorLayout(latents, "float32"),
            "finished": TensorLayout(latents, spec.dtype),
            "decoded": image,
            "output": TensorLayout((spec.height, spec.width, 3), "uint8"),
        }
    )
