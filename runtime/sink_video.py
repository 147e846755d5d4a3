"""Writes frames and sound into a video file that stays playable whatever happens."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.error

from live2diff_trt.bundle.errors import OutputExistsError
from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame
from live2diff_trt.runtime.sink_audio import AudioTrack
from live2diff_trt.runtime.sink_encoder import (
    CONTAINERS,
    EncoderOptions,
    add_video_stream,
    open_container,
)
from live2diff_trt.runtime.sink_picture import PictureEncoder

logger = logging.getLogger(__name__)


class VideoSink:
    """An H.264 video, with the sound of another file if asked for.

    Frames keep their times, to 1/90000 s (Matroska: 1/1000 s). The video grows as ``NAME.partial.mp4`` beside
    its target and is renamed at the end. If the ``with`` block is left by an exception, what was written
    stays there, playable; if the process is killed, all but about the last second. Sound is cut to match.

    Args:
        path: ends in .mp4, .mkv or .mov; its folder exists.
        width, height: of every frame, in pixels, even.
        frame_rate: average, in frames per second; the last frame is shown for one frame of it.
        audio_path: the file whose first audio stream is kept; time 0 is that of its first video frame.
        overwrite: replace ``path`` at the end.
        options: of the encoder.

    Raises:
        OutputExistsError: ``path`` exists already.
        SinkError: the container is unknown, the size is odd, or the folder is missing; on entering, the file
            can't be made; on leaving, its end can't be written, or what is at ``path`` does not give way, as a file
            that is open on Windows: the video then stays where it grew.
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        frame_rate: Fraction,
        *,
        audio_path: Path | None = None,
        overwrite: bool = False,
        options: EncoderOptions | None = None,
    ) -> None:
        self.path = Path(path)
        self.partial_path = self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")
        self.width, self.height, self.frame_rate = width, height, frame_rate
        self.audio_path, self.options = audio_path, options or EncoderOptions()
        self._pictures = PictureEncoder(width, height, frame_rate)
        # After a failure FFmpeg is handed nothing more: if the header could not be written, it would crash.
        self._broken = False
        self._check_target(overwrite)

    @property
    def frames(self) -> int:
        """How many were written."""
        return self._pictures.frames

    def __enter__(self) -> VideoSink:
        with ExitStack() as undo, self._explained():
            undo.callback(self.partial_path.unlink, missing_ok=True)
            # Empties a stale one, and fails now rather than at the first frame.
            self.partial_path.write_bytes(b"")
            self._container = undo.enter_context(open_container(self.partial_path))
            self._stream = add_video_stream(self._container, self.width, self.height, self.frame_rate, self.options)
            self._audio = None if self.audio_path is None else AudioTrack(self.audio_path, self._container)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None and self.frames and not self._broken:
            self._complete()
            return
        self._keep_partial()
        if error is None:
            self._report_nothing_complete()

    def write(self, frame: FinishedFrame) -> None:
        """Encode one frame, and the sound before it.

        Raises:
            SinkError: the frame is of another size, does not come after the last one, or can't be written.
        """
        if self._broken:
            raise self._given_up()
        picture = self._pictures.turn(frame)
        with self._explained():
            self._mux(picture)
            self._mux_sound(frame.time)

    def _mux(self, picture: av.VideoFrame | None) -> None:
        self._container.mux(self._stream.encode(picture))

    def _mux_sound(self, until: Fraction) -> None:
        if self._audio is not None:
            self._audio.write_until(until)

    def _complete(self) -> None:
        self._finish()
        try:
            self.partial_path.replace(self.path)
        except OSError as error:
            raise SinkError(
                f"{self.path} can't be replaced: {error.strerror}",
                f"Close what has it open, and rename {self.partial_path}: that is the whole video",
            ) from error

    def _keep_partial(self) -> None:
        """Close what an exception left behind. Nothing is raised here: it would hide that exception."""
        if self.frames and not self._broken:
            try:
                self._finish()
            except SinkError as error:
                logger.warning("the end of %s is missing: %s", self.partial_path, error)
        self._close_quietly()
        if self.frames and self.partial_path.stat().st_size:
            logger.warning("stopped after %d frames; they are kept in %s", self.frames, self.partial_path)
        else:
            self.partial_path.unlink(missing_ok=True)

    def _finish(self) -> None:
        try:
            with self._explained():
                self._mux(None)
                self._mux_sound((self._pictures.last_time or 0) + 1 / self.frame_rate)
        except BaseException:
            self._close_quietly()
            raise
        self._close()

    def _report_nothing_complete(self) -> None:
        if self._broken:
            raise self._given_up()
        logger.warning("no frame came, so %s is not written", self.path)

    def _given_up(self) -> SinkError:
        return SinkError(f"{self.partial_path} was given up after an error", "See to that error and start again")

    def _close(self) -> None:
        if self._audio is not None:
            self._audio.close()
        with self._explained():
            self._container.close()

    def _close_quietly(self) -> None:
        try:
            self._close()
        except SinkError as error:
            logger.debug("closing failed after another failure: %s", error)

    def _check_target(self, overwrite: bool) -> None:
        if self.path.suffix.lower() not in CONTAINERS:
            raise SinkError(
                f"{self.path} is of a kind that can't be written", f"End its name in {', '.join(CONTAINERS)}"
            )
        if not self.path.parent.is_dir():
            raise SinkError(f"there is no folder {self.path.parent}", "Make it first, or choose another")
        if self.path.is_dir():
            raise SinkError(f"{self.path} is a folder", "Choose another name")
        if self.path.exists() and not overwrite:
            raise OutputExistsError(self.path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            self._broken = True
            raise SinkError(
                f"{self.partial_path} can't be written: {error.strerror}",
                "Check the free space and the rights there",
            ) from error
