"""Sources against real containers: every frame once, upright, in its colours, at its time."""

from __future__ import annotations

import functools
import itertools
import logging
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from live2diff_trt.runtime import source_files
from live2diff_trt.runtime.errors import SourceError
from live2diff_trt.runtime.frame import Image
from live2diff_trt.runtime.sink import encode_png
from live2diff_trt.runtime.source import (
    CameraSource,
    FileSource,
    FolderSource,
    TestPatternSource,
    open_source,
)
from live2diff_trt.runtime.source_decode import RisingClock

Clip = Callable[[str], Path]

ONE = 65536  # 1.0 in a display matrix
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 64, height: int = 32) -> Image:
    """Red and green above, blue and white below: every turn and mirroring shows."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def corners(image: Image) -> list[tuple[int, ...]]:
    """The four corners' colours, in reading order, each channel rounded to 0 or 255."""
    picked = image[[6, 6, -6, -6], [6, -6, 6, -6]]
    return [tuple(255 if channel > 127 else 0 for channel in pixel) for pixel in picked.tolist()]


def write_video(path: Path, pictures: list[Image], codec: str = "libx264", pix_fmt: str = "yuv420p") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def times_of(path: Path) -> list[Fraction]:
    with FileSource(path) as source:
        return [frame.time for frame in source]


def assert_rising(times: list[Fraction]) -> None:
    assert times[0] == 0
    assert all(later > earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize(
    ("name", "frames", "rate", "size"),
    [
        ("bikes.mp4", 250, Fraction(25), (640, 272)),
        ("carphone_pristine.mp4", 120, Fraction(30000, 1001), (176, 144)),
    ],
)
def test_every_frame_of_a_clip_comes_once_at_its_time(
    clip: Clip, name: str, frames: int, rate: Fraction, size: tuple[int, int]
) -> None:
    with FileSource(clip(name)) as source:
        assert (source.width, source.height) == size
        assert (source.frame_rate, source.frame_count, source.audio_path) == (rate, frames, None)
        read = list(source)
    assert [frame.time for frame in read] == [index / rate for index in range(frames)]
    assert all(frame.image.shape == (size[1], size[0], 3) for frame in read)
    assert all(frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous for frame in read)
    assert len({frame.image.tobytes() for frame in read}) > frames * 0.9


def test_sound_is_announced(clip: Clip) -> None:
    with FileSource(clip("bigbuckbunny.mp4")) as source:
        assert source.audio_path == clip("bigbuckbunny.mp4")


def test_a_source_is_read_once_and_closes_twice(clip: Clip) -> None:
    with FileSource(clip("carphone_pristine.mp4")) as source:
        assert len(list(source)) == 120
        assert not list(source)
    source.close()


def test_nothing_comes_after_closing(clip: Clip) -> None:
    with FileSource(clip("carphone_pristine.mp4")) as source:
        next(iter(source))
    assert not list(source)


def test_bytes_flipped_in_the_middle_do_not_end_the_video(
    clip: Clip, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(clip("bikes.mp4").read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 30000)
    data[middle] = bytes(255 - byte for byte in data[middle])
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    with caplog.at_level(logging.WARNING), FileSource(damaged) as source:
        times = [frame.time for frame in source]
        assert source.health.skipped_packets > 0
    assert_rising(times)
    assert 200 <= len(times) < 250
    assert times[-1] > 9  # it goes on to the end, past the damage
    assert "damaged packet" in caplog.text


def test_a_video_cut_off_gives_what_is_left(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mkv"
    write_video(whole, [np.roll(quarters(), index, axis=1) for index in range(200)], codec="mpeg4")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    times = times_of(cut)
    assert_rising(times)
    assert 50 < len(times) < 150


def test_pictures_all_broken_are_an_error_not_an_empty_video(clip: Clip, tmp_path: Path) -> None:
    data = bytearray(clip("carphone_pristine.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov", start) - 4 if b"moov" in data[start:] else len(data)
    data[start:end] = bytes(end - start)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    with pytest.raises(SourceError, match=r"not one frame of .*broken\.mp4 can be decoded.*copy or convert"):
        FileSource(broken)


@pytest.mark.parametrize("content", [b"", b"This is no video.\n" * 50])
def test_what_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mp4"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"notes\.mp4 can't be opened: .*Check that it is a complete video"):
        FileSource(path)


def test_a_cut_off_index_is_refused(clip: Clip, tmp_path: Path) -> None:
    data = clip("bikes.mp4").read_bytes()
    assert data.rindex(b"moov") > len(data) // 2, "the clip's index is expected at its end"
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"cut\.mp4 can't be opened"):
        FileSource(path)


def test_missing_files_folders_and_sound_have_their_own_remedies(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no file .*absent\.mp4\. Check the path\."):
        FileSource(tmp_path / "absent.mp4")
    with pytest.raises(SourceError, match="is a folder"):
        FileSource(tmp_path)
    with pytest.raises(SourceError, match="has no video stream"):
        FileSource(write_sound(tmp_path / "sound.wav"))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((ONE, 0, 0, ONE), [RED, GREEN, BLUE, WHITE]),
        ((0, ONE, -ONE, 0), [BLUE, RED, WHITE, GREEN]),  # a quarter turn clockwise
        ((-ONE, 0, 0, -ONE), [WHITE, BLUE, GREEN, RED]),
        ((0, -ONE, ONE, 0), [GREEN, WHITE, RED, BLUE]),
        ((-ONE, 0, 0, ONE), [GREEN, RED, WHITE, BLUE]),  # mirrored
    ],
)
def test_phone_videos_stand_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], expected: list[tuple[int, ...]]
) -> None:
    path = write_video(tmp_path / "phone.mp4", [quarters()] * 2)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # past version, times, ids and layer of a version 0 track header
    a, b, c, d = matrix
    assert struct.unpack(">9i", data[at : at + 36]) == (ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with FileSource(path) as source:
        frame = next(iter(source))
    assert (source.width, source.height) == ((32, 64) if b else (64, 32))
    assert frame.image.shape == (source.height, source.width, 3)
    assert frame.image.flags.c_contiguous
    assert corners(frame.image) == expected


def write_photo(path: Path, orientation: int) -> Path:
    """A JPEG file as phones write it: EXIF says how it is to be turned."""
    write_video(path, [quarters()], "mjpeg", "yuvj444p")
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    exif = b"Exif\0\0" + tiff
    jpeg = path.read_bytes()
    assert jpeg[:2] == b"\xff\xd8"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif + jpeg[2:])
    return path


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),  # a quarter turn clockwise
        (3, [WHITE, BLUE, GREEN, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
    ],
)
def test_photos_stand_upright(tmp_path: Path, orientation: int, expected: list[tuple[int, ...]]) -> None:
    path = write_photo(tmp_path / "photo.jpg", orientation)
    with FileSource(path) as source:
        (frame,) = source
    assert (source.width, source.height) == ((64, 32) if orientation in (1, 3) else (32, 64))
    assert corners(frame.image) == expected


def test_a_picture_with_a_colour_profile_is_read_and_forgotten(tmp_path: Path) -> None:
    """In a process of its own: PyAV ends one that looks at the side data of such a picture."""
    png = encode_png(quarters())
    profile = b"iCCP" + b"a profile\0\0" + zlib.compress(bytes(128))
    at = 8 + 25  # behind the signature and the header
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    path = tmp_path / "profile.png"
    path.write_bytes(png[:at] + chunk + png[at:])
    program = (
        "import gc, sys; from pathlib import Path; from live2diff_trt.runtime.source import FileSource\n"
        "with FileSource(Path(sys.argv[1])) as source: (frame,) = source\n"
        "shape = frame.image.shape; del frame, source; gc.collect(); print(*shape)"
    )
    ended = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "32 64 3\n"), ended.stderr


@pytest.mark.parametrize(("height", "space"), [(720, "ITU709"), (360, "ITU601")])
def test_untagged_video_has_the_colours_that_players_show(tmp_path: Path, height: int, space: str) -> None:
    chart = quarters(640, height)
    yuv = av.VideoFrame.from_ndarray(chart, format="rgb24").reformat(
        format="yuv420p", src_colorspace="DEFAULT", dst_colorspace=space
    )
    raw = yuv.to_ndarray()
    path = tmp_path / "untagged.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 640, height, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(raw, format="yuv420p")))
        container.mux(stream.encode(None))
    with FileSource(path) as source:
        image = next(iter(source)).image
    assert np.abs(image.astype(int) - chart).mean() < 2


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encode_png(quarters()))
    with open_source(str(path)) as source:
        assert (source.width, source.height, source.frame_count) == (64, 32, 1)
        frames = list(source)
    assert len(frames) == 1
    assert np.array_equal(frames[0].image, quarters())


def test_an_animated_gif_plays_once(tmp_path: Path) -> None:
    pictures = [np.full((16, 16, 3), shade, np.uint8) for shade in (0, 73, 146, 255)]
    path = write_video(tmp_path / "moving.gif", pictures, codec="gif", pix_fmt="rgb8")
    with FileSource(path) as source:
        frames = list(source)
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(4)]
    assert [frame.image.mean() for frame in frames] == pytest.approx([0, 73, 146, 255], abs=20)


def test_frames_of_differing_size_pass_as_they_are(tmp_path: Path) -> None:
    small, large = quarters(16, 16), quarters(32, 24)
    path = tmp_path / "mixed.mjpeg"
    single = [write_video(tmp_path / f"{at}.mjpeg", [p], "mjpeg", "yuvj420p") for at, p in enumerate([small, large])]
    path.write_bytes(b"".join(part.read_bytes() for part in single))
    with FileSource(path) as source:
        shapes = [frame.image.shape for frame in source]
    assert shapes == [(16, 16, 3), (24, 32, 3)]


def test_missing_and_falling_time_stamps_are_repaired_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = RisingClock("clip", Fraction(10))
    stamps = [Fraction(5), Fraction(51, 10), None, Fraction(51, 10), Fraction(4), Fraction(6)]
    with caplog.at_level(logging.WARNING):
        times = [clock.time_of(stamp) for stamp in stamps]
    assert times == [Fraction(tenths, 10) for tenths in (0, 1, 2, 3, 4, 10)]
    assert len(caplog.records) == 1


def test_a_stream_without_time_stamps_gets_them(tmp_path: Path) -> None:
    path = write_video(tmp_path / "bare.h264", [quarters()] * 6)
    times = times_of(path)
    assert len(times) == 6
    assert_rising(times)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_an_address_is_read_like_a_file(server: str, tmp_path: Path) -> None:
    write_video(tmp_path / "live.mkv", [quarters()] * 20, codec="mpeg4")
    with open_source(f"{server}/live.mkv") as source:
        assert source.audio_path is None
        assert len(list(source)) == 20
    with pytest.raises(SourceError, match="absent"):
        open_source(f"{server}/absent.mp4")


def test_a_playlist_with_an_end_is_a_file(server: str, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.m3u8", [quarters()] * 20)
    with open_source(f"{server}/clip.m3u8") as source:
        assert not source.is_live
        assert len(list(source)) == 20


def test_a_playlist_that_grows_is_live_until_its_end(server: str, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.m3u8", [quarters()] * 200)
    ended = (tmp_path / "clip.m3u8").read_text()
    (tmp_path / "clip.m3u8").write_text(ended.replace("#EXT-X-ENDLIST\n", ""))
    with open_source(f"{server}/clip.m3u8") as source:
        assert source.is_live
        assert len(list(itertools.islice(source, 150))) == 150
        (tmp_path / "clip.m3u8").write_text(ended)
        assert len(list(source)) == 50


def test_a_camera_gives_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's own generator stands in for the device; the rest of the way is a camera's."""
    monkeypatch.setattr(source_files, "CAMERA_FORMATS", dict.fromkeys(source_files.CAMERA_FORMATS, "lavfi"))
    with CameraSource("testsrc=size=64x48:rate=10") as source:
        assert (source.width, source.height, source.frame_rate) == (64, 48, Fraction(10))
        assert (source.frame_count, source.audio_path) == (None, None)
        times = [frame.time for frame in itertools.islice(source, 12)]
    assert times == [Fraction(index, 10) for index in range(12)]


@pytest.mark.parametrize("name", ["camera:/dev/video99", "camera:99", "/dev/video99"])
def test_a_missing_camera_is_an_error(name: str) -> None:
    with pytest.raises(SourceError, match=r"camera .*99 can't be opened: .*Check that it is plugged in"):
        open_source(name)


def test_a_folder_plays_in_natural_order(tmp_path: Path) -> None:
    shades = {"frame2.png": 20, "frame10.png": 100, "frame1.PNG": 10, "Frame3.png": 30}
    for name, shade in shades.items():
        (tmp_path / name).write_bytes(encode_png(np.full((8, 12, 3), shade, np.uint8)))
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(str(tmp_path)) as source:
        assert isinstance(source, FolderSource)
        assert (source.width, source.height, source.frame_count, source.audio_path) == (12, 8, 4, None)
        frames = list(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [10, 20, 30, 100]
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(4)]


def test_a_folder_has_the_rate_it_is_given(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(encode_png(quarters()))
    with FolderSource(tmp_path, Fraction(30000, 1001)) as source:
        assert [frame.time for frame in source] == [0, Fraction(1001, 30000)]
    with pytest.raises(SourceError, match="Use a rate above 0"):
        FolderSource(tmp_path, Fraction(0))


def test_folders_that_can_not_be_played(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no picture"):
        FolderSource(tmp_path)
    with pytest.raises(SourceError, match="there is no folder"):
        FolderSource(tmp_path / "absent")
    (tmp_path / "a1.png").write_bytes(encode_png(quarters()))
    (tmp_path / "a2.png").write_text("no picture")
    with FolderSource(tmp_path) as source, pytest.raises(SourceError, match=r"a2\.png"):
        list(source)


def test_the_test_pattern_repeats_itself_and_moves() -> None:
    with TestPatternSource(96, 64, frame_count=12) as first, TestPatternSource(96, 64) as endless:
        frames, again = list(first), list(itertools.islice(endless, 12))
    assert [frame.time for frame in frames] == [Fraction(index, 25) for index in range(12)]
    assert all(np.array_equal(one.image, two.image) for one, two in zip(frames, again, strict=True))
    for one, two in itertools.pairwise(frames):
        moved = (one.image != two.image).any(axis=2).mean()
        assert 0.01 < moved < 0.5  # some of it moves, some stands still
    assert len(np.unique(frames[0].image.reshape(-1, 3), axis=0)) > 500
    assert frames[0].image.reshape(-1, 3).std(axis=0).min() > 40


@pytest.mark.parametrize(
    ("name", "size", "rate", "count"),
    [
        ("test-pattern", (640, 360), Fraction(25), None),
        ("test-pattern:64x48", (64, 48), Fraction(25), None),
        ("test-pattern:@30", (640, 360), Fraction(30), None),
        ("test-pattern:,7", (640, 360), Fraction(25), 7),
        ("test-pattern:64x48@30000/1001,300", (64, 48), Fraction(30000, 1001), 300),
        ("test-pattern:64x48@12.5", (64, 48), Fraction(25, 2), None),
    ],
)
def test_the_test_pattern_is_named_in_parts(
    name: str, size: tuple[int, int], rate: Fraction, count: int | None
) -> None:
    with open_source(name) as source:
        assert isinstance(source, TestPatternSource)
        assert ((source.width, source.height), source.frame_rate, source.frame_count) == (size, rate, count)
        frame = next(iter(source))
    assert frame.image.shape == (size[1], size[0], 3)


@pytest.mark.parametrize("name", ["test-pattern:", "test-pattern:64", "test-pattern:64x48,", "test-pattern:64x48@x"])
def test_a_misspelt_test_pattern_shows_the_form(name: str) -> None:
    with pytest.raises(SourceError, match=r"Write test-pattern:WIDTHxHEIGHT@FPS,FRAMES"):
        open_source(name)


@pytest.mark.parametrize("name", ["test-pattern:0x0", "test-pattern:@0", "test-pattern:@1/0", "test-pattern:,0"])
def test_an_impossible_test_pattern_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match="Use 16x16 pixels or more"):
        open_source(name)


def test_a_name_that_is_nothing_is_an_error() -> None:
    with pytest.raises(SourceError, match="there is no file nowhere"):
        open_source("nowhere")


def test_frames_go_where_they_are_told_to(clip: Clip, tmp_path: Path) -> None:
    """From when that is said on; what was read before, or is known of a folder already, lies in ordinary memory."""
    given: list[Image] = []

    def new_frame(height: int, width: int) -> Image:
        given.append(np.full((height, width, 3), 77, np.uint8))
        return given[-1]

    for index in range(2):
        (tmp_path / f"{index}.png").write_bytes(encode_png(quarters()))
    for name in (str(clip("carphone_pristine.mp4")), str(tmp_path), "test-pattern:64x48@25,3"):
        with open_source(name) as source, open_source(name) as plain:
            source.new_frame = new_frame
            frames = list(itertools.islice(source, 3))
            for frame, other in zip(frames, plain, strict=False):
                np.testing.assert_array_equal(frame.image, other.image)
        assert all(any(frame.image is one for one in given) for frame in frames[1:])
