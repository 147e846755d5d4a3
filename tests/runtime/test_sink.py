"""Sinks against real containers: what is written is read back, and failures are real ones."""

from __future__ import annotations

import itertools
import logging
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from live2diff_trt.bundle.errors import OutputExistsError
from live2diff_trt.runtime.errors import SinkError
from live2diff_trt.runtime.frame import FinishedFrame, Image
from live2diff_trt.runtime.sink import EncoderOptions, FolderSink, NullSink, Sink, VideoSink, open_sink
from live2diff_trt.runtime.source import FileSource, FolderSource, TestPatternSource
from tests.windows_files import used_in

Clip = Callable[[str], Path]

RATE = Fraction(25)
TICK = Fraction(1, 90000)
SIZE = (96, 64)


def finished(image: Image, time: Fraction, index: int) -> FinishedFrame:
    return FinishedFrame(image=image, time=time, index=index, latency_ms=0.0)


def pattern(count: int, size: tuple[int, int] = SIZE, rate: Fraction = RATE) -> list[FinishedFrame]:
    with TestPatternSource(*size, frame_rate=rate, frame_count=count) as source:
        return [finished(frame.image, frame.time, index) for index, frame in enumerate(source)]


def write_all(sink: Sink, frames: Iterable[FinishedFrame], then: BaseException | None = None) -> None:
    """Write ``frames``, then leave the sink, by an exception if one is given."""
    with sink:
        for frame in frames:
            sink.write(frame)
        if then is not None:
            raise then


def times_of(path: Path) -> list[Fraction]:
    with FileSource(path) as source:
        return [frame.time for frame in source]


def colour_chart() -> Image:
    """24 flat patches: grey steps, primaries, their mixtures."""
    shades = [(v, v, v) for v in (0, 60, 120, 180, 220, 255)]
    mixtures = [
        *itertools.product((30, 225), repeat=3),
        *itertools.product((0, 255), (0, 128, 255), (64, 255)),
    ]
    patches = np.array((shades + mixtures)[:24], np.uint8).reshape(4, 6, 3)
    return patches.repeat(32, axis=0).repeat(32, axis=1)


def sound_span(path: Path) -> tuple[str, Fraction, Fraction]:
    """Codec, start and end of the sound, in seconds, as its packets tell."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert stream.time_base is not None
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
        start = min(packet.pts or 0 for packet in packets) * stream.time_base
        end = max((packet.pts or 0) + (packet.duration or 0) for packet in packets) * stream.time_base
        return stream.codec_context.name, start, end


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_come_back_with_their_times(tmp_path: Path, suffix: str) -> None:
    rate = Fraction(24000, 1001)  # no whole number of ticks
    frames = pattern(40, rate=rate)
    target = tmp_path / f"out{suffix}"
    write_all(VideoSink(target, *SIZE, rate), frames)
    with FileSource(target) as source:
        read = list(source)
        assert float(source.frame_rate) == pytest.approx(float(rate), rel=1e-3)
    tolerance = Fraction(1, 1000) if suffix == ".mkv" else TICK / 2
    assert len(read) == 40
    assert all(abs(one.time - two.time) <= tolerance for one, two in zip(frames, read, strict=True))
    errors = [np.abs(one.image.astype(int) - two.image).mean() for one, two in zip(frames, read, strict=True)]
    assert max(errors) < 6
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_file_starts_at_zero_and_ends_one_frame_after_the_last(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    write_all(VideoSink(target, *SIZE, RATE), pattern(30))
    with av.open(str(target)) as container:
        assert container.streams.video[0].start_time == 0
        assert container.duration is not None
        assert Fraction(container.duration, av.time_base) == pytest.approx(30 / RATE, abs=0.002)


def test_a_finished_video_has_one_index_for_all_of_it(tmp_path: Path) -> None:
    write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), pattern(60))
    boxes = list(top_level_boxes((tmp_path / "out.mp4").read_bytes()))
    libavformat: tuple[int, ...] = av.library_versions["libavformat"]
    assert boxes.count("moof") == 0 if libavformat >= (61, 7) else boxes.count("moof") >= 2
    assert boxes.count("moov") == 1


def top_level_boxes(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        yield name.decode()
        assert size >= 8
        at += size


def test_names_that_look_like_addresses_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_all(VideoSink("take:2.mp4", *SIZE, RATE), pattern(3))
    assert len(times_of(Path("take:2.mp4"))) == 3


def test_variable_frame_rates_are_kept(tmp_path: Path) -> None:
    times = [Fraction(ms, 1000) for ms in (0, 33, 40, 41, 200, 1000, 1007, 3000)]
    frames = [finished(frame.image, time, frame.index) for frame, time in zip(pattern(8), times, strict=True)]
    write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), frames)
    assert times_of(tmp_path / "out.mp4") == times


def test_colours_are_right_and_tagged(tmp_path: Path) -> None:
    chart = colour_chart()
    height, width = chart.shape[:2]
    target = tmp_path / "chart.mp4"
    write_all(VideoSink(target, width, height, RATE), [finished(chart, index / RATE, index) for index in range(3)])
    with FileSource(target) as source:
        image = list(source)[-1].image
    centres = np.abs(image[16::32, 16::32].astype(int) - chart[16::32, 16::32])
    assert centres.mean() < 2
    assert centres.max() <= 6
    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert (*tags, context.pix_fmt) == (1, 1, 1, 1, "yuv420p")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_kept_as_it_is(clip: Clip, tmp_path: Path, suffix: str) -> None:
    source = clip("bigbuckbunny.mp4")
    target = tmp_path / f"out{suffix}"
    write_all(VideoSink(target, *SIZE, RATE, audio_path=source), pattern(132))
    _, _, whole = sound_span(source)
    codec, start, end = sound_span(target)
    assert codec == "aac"
    assert 0 <= start < Fraction(1, 40)
    assert abs(end - min(whole, 132 / RATE)) < 1 / RATE
    assert decoded_sound(target, 1.0, 2.0) == pytest.approx(decoded_sound(source, 1.0, 2.0), abs=0.02)


def decoded_sound(path: Path, start: float, end: float) -> list[float]:
    """Loudness of every hundredth of a second between two times: shows that sound lies where it lay."""
    with av.open(str(path)) as container:
        pieces = [(frame.time or 0.0, frame.to_ndarray().mean(axis=0)) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    track = np.zeros(int(rate * (end + 1)))
    for at, samples in pieces:
        first = max(0, round(at * rate))
        room = track[first : first + len(samples)]
        room[:] = samples[: len(room)]
    step = rate // 100
    parts = np.abs(track[int(start * rate) : int(end * rate)]).reshape(-1, step)
    return [float(value) for value in parts.mean(axis=1)]


def test_sound_ends_with_the_frames(clip: Clip, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    write_all(VideoSink(target, *SIZE, RATE, audio_path=clip("bigbuckbunny.mp4")), pattern(50))
    _, _, end = sound_span(target)
    assert abs(end - 2) < 1 / RATE


def mux_black_pictures(container: OutputContainer, indices: range) -> None:
    stream = container.add_stream("mpeg4", rate=25)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = SIZE
    for index in indices:
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
        picture.pts, picture.time_base = index, Fraction(1, 25)
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))


def write_sound(path: Path, codec: str, loud_from: float = 0.0, video_from: float | None = None) -> Path:
    """Two seconds of sound at 48 kHz, silent before ``loud_from``; pictures start at ``video_from``."""
    wave = np.sin(np.arange(96000) * 0.05) * 8000 * (np.arange(96000) >= loud_from * 48000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48000)
        assert isinstance(stream, AudioStream)
        if video_from is not None:
            mux_black_pictures(container, range(round(25 * video_from), 50))
        for start in range(0, 96000, 960):
            piece = wave[start : start + 960].astype(np.int16).repeat(2)[None]
            sound = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
            sound.sample_rate, sound.pts = 48000, start
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("codec", "suffix", "kept_as"), [("pcm_s16le", ".mov", "pcm_s16le"), ("pcm_u8", ".mp4", "aac")]
)
def test_sound_becomes_aac_only_where_it_must(tmp_path: Path, codec: str, suffix: str, kept_as: str) -> None:
    sound = write_sound(tmp_path / "sound.wav", codec, loud_from=1)
    target = tmp_path / f"out{suffix}"
    write_all(VideoSink(target, *SIZE, RATE, audio_path=sound), pattern(45))
    found, start, end = sound_span(target)
    assert found == kept_as
    assert 0 <= start < Fraction(1, 25)
    assert abs(end - 45 / RATE) < 1 / RATE
    before, after = decoded_sound(target, 0.5, 0.95), decoded_sound(target, 1.05, 1.5)
    assert max(before) < 0.05 * min(after)


def test_sound_stays_with_pictures_that_start_late(tmp_path: Path) -> None:
    source = write_sound(tmp_path / "late.mkv", "pcm_s16le", loud_from=1.5, video_from=1.0)
    with FileSource(source) as reader:
        frames = [finished(frame.image, frame.time, index) for index, frame in enumerate(reader)]
    assert (len(frames), frames[0].time) == (25, Fraction(0))
    target = tmp_path / "out.mkv"
    write_all(VideoSink(target, *SIZE, RATE, audio_path=source), frames)
    assert times_of(target)[0] == 0
    assert max(decoded_sound(target, 0.0, 0.47)) == 0
    assert min(decoded_sound(target, 0.53, 0.9)) > 0


def test_sound_that_is_not_there_is_an_error(clip: Clip, tmp_path: Path) -> None:
    with (
        pytest.raises(SinkError, match="has no sound"),
        VideoSink(tmp_path / "out.mp4", *SIZE, RATE, audio_path=clip("bikes.mp4")),
    ):
        pass
    with (
        pytest.raises(SinkError, match="can't be read: No such file"),
        VideoSink(tmp_path / "out.mp4", *SIZE, RATE, audio_path=tmp_path / "absent.wav"),
    ):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_a_playable_part(
    clip: Clip, tmp_path: Path, suffix: str, failure: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    sink = VideoSink(tmp_path / f"out{suffix}", *SIZE, RATE, audio_path=clip("bigbuckbunny.mp4"))
    with caplog.at_level(logging.WARNING), pytest.raises(failure, match="stop"):
        write_all(sink, pattern(30), then=failure("stop"))
    part = tmp_path / f"out.partial{suffix}"
    assert list(tmp_path.iterdir()) == [part]
    assert len(times_of(part)) == 30
    assert abs(sound_span(part)[2] - 30 / RATE) < 1 / RATE
    assert str(part) in caplog.text


def test_one_frame_is_enough_for_a_playable_part(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), pattern(1), then=KeyboardInterrupt())
    assert times_of(tmp_path / "out.partial.mp4") == [0]


def test_an_exception_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="early"):
        write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), [], then=RuntimeError("early"))
    assert not list(tmp_path.iterdir())


def test_no_frame_makes_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), [])
    assert not list(tmp_path.iterdir())
    assert "no frame came" in caplog.text


def test_a_stale_part_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out.partial.mp4").write_text("stale")
    write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), pattern(3))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


NOISE = "noise.integers(0, 256, (256, 256, 3), dtype=np.uint8)"  # about 50 kB a frame in a video
FLAT = "np.full((256, 256, 3), index, np.uint8)"  # next to nothing


def run_writer(sink: str, before: str, after: str, count: int, image: str = NOISE) -> subprocess.CompletedProcess[str]:
    """Write ``count`` frames in a process of its own."""
    program = f"""
    import os, resource, signal
    from fractions import Fraction
    import numpy as np
    from live2diff_trt.runtime.frame import FinishedFrame
    from live2diff_trt.runtime.sink import EncoderOptions, FolderSink, VideoSink
    {before}
    noise, fast = np.random.default_rng(1), EncoderOptions(preset="ultrafast")
    with {sink} as sink:
        for index in range({count}):
            sink.write(FinishedFrame({image}, Fraction(index, 25), index, 0.0))
        {after}
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=os.sep,  # the checkout's own folders must not be taken for packages
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def video_sink(path: Path) -> str:
    return f"VideoSink({str(path)!r}, 256, 256, Fraction(25), options=fast)"


def limited_to(size_bytes: int) -> str:
    """Make the system refuse to let any file grow further, as a full disk does."""
    return (
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes}, {size_bytes}))"
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("count", [100, 25])
def test_a_full_disk_is_an_error_and_keeps_what_was_written(tmp_path: Path, suffix: str, count: int) -> None:
    result = run_writer(video_sink(tmp_path / f"out{suffix}"), limited_to(1_000_000), "pass", count)
    part = tmp_path / f"out.partial{suffix}"
    assert result.returncode == 1, result.stderr
    assert result.stderr.strip().splitlines()[-1] == (
        f"live2diff_trt.runtime.errors.SinkError: {part} can't be written: File too large. "
        "Check the free space and the rights there."
    )
    assert list(tmp_path.iterdir()) == [part]
    assert part.stat().st_size == 1_000_000
    assert 1 <= len(times_of(part)) < count


def test_a_disk_without_any_room_leaves_nothing(tmp_path: Path) -> None:
    result = run_writer(video_sink(tmp_path / "out.mp4"), limited_to(0), "pass", 25)
    assert result.returncode == 1, result.stderr
    assert "out.partial.mp4 can't be written: File too large" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_sink_that_failed_takes_nothing_more(tmp_path: Path) -> None:
    """Even if the caller swallows the error."""
    swallow = """
        import contextlib
        from live2diff_trt.runtime.errors import SinkError
        write = VideoSink.write
        def swallowing(sink, frame):
            with contextlib.suppress(SinkError):
                write(sink, frame)
        VideoSink.write = swallowing
    """
    before = limited_to(1_000_000) + textwrap.indent(textwrap.dedent(swallow), "    ")
    result = run_writer(video_sink(tmp_path / "out.mp4"), before, "pass", 60)
    assert result.returncode == 1, result.stderr
    assert "out.partial.mp4 was given up after an error" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]


@pytest.mark.parametrize("image", [NOISE, FLAT])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_a_killed_process_leaves_a_playable_part(tmp_path: Path, suffix: str, image: str) -> None:
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    result = run_writer(video_sink(tmp_path / f"out{suffix}"), "pass", kill, 100, image)
    assert result.returncode == -signal.SIGKILL, result.stderr
    part = tmp_path / f"out.partial{suffix}"
    assert list(tmp_path.iterdir()) == [part]
    times = times_of(part)
    assert len(times) >= 40
    assert times == [index / RATE for index in range(len(times))]


def test_an_existing_video_is_only_replaced_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_text("precious")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        VideoSink(target, *SIZE, RATE)
    with pytest.raises(RuntimeError, match="stop"):
        write_all(VideoSink(target, *SIZE, RATE, overwrite=True), pattern(1), then=RuntimeError("stop"))
    assert target.read_text() == "precious"
    write_all(VideoSink(target, *SIZE, RATE, overwrite=True), pattern(3))
    assert len(times_of(target)) == 3
    assert not (tmp_path / "out.partial.mp4").exists()


def test_a_video_may_replace_the_one_it_is_made_from(tmp_path: Path) -> None:
    target = tmp_path / "same.mp4"
    write_all(VideoSink(target, *SIZE, RATE), pattern(10))
    with FileSource(target) as source, VideoSink(target, *SIZE, RATE, overwrite=True) as sink:
        for index, frame in enumerate(source):
            sink.write(finished(255 - frame.image, frame.time, index))
    assert len(times_of(target)) == 10


@pytest.mark.parametrize(
    ("name", "size", "rate", "message"),
    [
        ("out.webm", SIZE, RATE, r"End its name in \.mp4, \.mkv, \.mov"),
        ("absent/out.mp4", SIZE, RATE, "there is no folder .*absent"),
        ("out.mp4", (95, 64), RATE, "Use an even width"),
        ("out.mp4", (96, 0), RATE, "Use an even width"),
        ("out.mp4", SIZE, Fraction(0), "Use a rate above 0"),
    ],
)
def test_videos_that_can_not_be_written(
    tmp_path: Path, name: str, size: tuple[int, int], rate: Fraction, message: str
) -> None:
    with pytest.raises(SinkError, match=message):
        VideoSink(tmp_path / name, *size, rate)
    assert not list(tmp_path.iterdir())


def test_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    first, second = pattern(2)
    large = pattern(1, size=(128, 64))[0]
    with pytest.raises(SinkError, match="frame 0 is 128x64, the video 96x64"):
        write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), [large])
    assert not list(tmp_path.iterdir())
    with pytest.raises(SinkError, match=r"frame 0 at 0\.000000 s does not come after"):
        write_all(VideoSink(tmp_path / "out.mp4", *SIZE, RATE), [second, first])


def test_encoder_options_are_checked_and_used(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="crf lies between 0 and 51"):
        EncoderOptions(crf=52)
    sizes = []
    for crf in (10, 40):
        target = tmp_path / f"{crf}.mp4"
        write_all(VideoSink(target, *SIZE, RATE, options=EncoderOptions(crf=crf)), pattern(20))
        sizes.append(target.stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]


def test_a_folder_keeps_every_pixel(tmp_path: Path) -> None:
    frames = pattern(12)
    write_all(FolderSink(tmp_path / "new" / "frames"), frames)
    names = sorted(path.name for path in (tmp_path / "new" / "frames").iterdir())
    assert names == [f"frame-{index:06d}.png" for index in range(12)]
    with FolderSource(tmp_path / "new" / "frames") as source:
        assert all(np.array_equal(one.image, two.image) for one, two in zip(frames, source, strict=True))


def test_old_frames_of_a_folder_go_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("stays")
    write_all(FolderSink(tmp_path), pattern(4))
    with pytest.raises(OutputExistsError, match=r"frame-000000\.png exists already"):
        FolderSink(tmp_path)
    write_all(FolderSink(tmp_path, overwrite=True), pattern(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "frame-000000.png",
        "frame-000001.png",
        "notes.txt",
    ]


def test_a_picture_on_a_full_disk_leaves_no_half(tmp_path: Path) -> None:
    result = run_writer(f"FolderSink({str(tmp_path)!r})", limited_to(100_000), "pass", 1)
    assert result.returncode == 1, result.stderr
    assert "SinkError" in result.stderr
    assert "frame-000000.png can't be written: File too large" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_that_goes_away_is_an_error(tmp_path: Path) -> None:
    with FolderSink(tmp_path / "frames") as sink:
        (tmp_path / "frames").rmdir()
        with pytest.raises(SinkError, match=r"frame-000000\.png can't be written: No such file"):
            sink.write(pattern(1)[0])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="is not a folder"):
        FolderSink(tmp_path / "file")


def test_the_null_sink_counts() -> None:
    sink = NullSink()
    write_all(sink, pattern(5))
    assert sink.frames == 5


def test_sinks_are_told_apart_by_name(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    kinds = {
        "null": NullSink,
        f"{tmp_path}/out.MP4": VideoSink,
        f"{tmp_path}/out.mkv": VideoSink,
        f"{tmp_path}/frames": FolderSink,
        f"{tmp_path}/new.frames/": FolderSink,
        f"{tmp_path}/v1.2": FolderSink,
    }
    opened = {name: open_sink(name, width=96, height=64, frame_rate=RATE) for name in kinds}
    assert {name: type(sink) for name, sink in opened.items()} == kinds
    with pytest.raises(SinkError, match=r"Name a file ending in \.mp4, \.mkv, \.mov, a folder"):
        open_sink(f"{tmp_path}/out.avi", width=96, height=64, frame_rate=RATE)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_on_windows_a_video_is_completed_and_replaces_another(
    clip: Clip, tmp_path: Path, windows_files: None, suffix: str
) -> None:
    target = tmp_path / f"out{suffix}"
    for count in (10, 20):
        write_all(VideoSink(target, *SIZE, RATE, audio_path=clip("bigbuckbunny.mp4"), overwrite=True), pattern(count))
        assert list(tmp_path.iterdir()) == [target]
        assert len(times_of(target)) == count


def test_on_windows_a_video_that_is_open_is_not_replaced_and_nothing_is_lost(
    tmp_path: Path, windows_files: None
) -> None:
    """As by a player, or because it is the one that is read."""
    target, part = tmp_path / "same.mp4", tmp_path / "same.partial.mp4"
    write_all(VideoSink(target, *SIZE, RATE), pattern(10))
    before = target.read_bytes()
    with (
        FileSource(target),
        pytest.raises(SinkError, match=r"same\.mp4 can't be replaced: .*being used.*rename .*same\.partial\.mp4"),
    ):
        write_all(VideoSink(target, *SIZE, RATE, overwrite=True), pattern(20))
    assert target.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [target, part]
    assert len(times_of(part)) == 20
    part.replace(target)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_on_windows_nothing_is_open_any_more_when_a_sink_was_left(
    clip: Clip, tmp_path: Path, windows_files: None, failure: type[BaseException]
) -> None:
    with pytest.raises(failure, match="stop"):
        write_all(
            VideoSink(tmp_path / "out.mp4", *SIZE, RATE, audio_path=clip("bigbuckbunny.mp4")),
            pattern(5),
            then=failure("stop"),
        )
    with pytest.raises(SinkError, match="has no sound"):
        write_all(VideoSink(tmp_path / "other.mp4", *SIZE, RATE, audio_path=clip("bikes.mp4")), [])
    assert used_in(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]


def test_on_windows_pictures_that_are_open_stay_and_the_error_says_what_to_do(
    tmp_path: Path, windows_files: None
) -> None:
    write_all(FolderSink(tmp_path), pattern(2))
    with (
        (tmp_path / "frame-000000.png").open("rb"),
        pytest.raises(SinkError, match=r"being used by another process.*close what has its files open"),
    ):
        write_all(FolderSink(tmp_path, overwrite=True), pattern(1))
    assert len(list(tmp_path.iterdir())) == 2
    write_all(FolderSink(tmp_path, overwrite=True), pattern(1))
    assert [path.name for path in tmp_path.iterdir()] == ["frame-000000.png"]


def test_on_windows_a_folder_of_an_impossible_name_is_refused(tmp_path: Path, windows_files: None) -> None:
    with pytest.raises(SinkError, match="can't be written: The filename"):
        write_all(FolderSink(tmp_path / "con"), [])
