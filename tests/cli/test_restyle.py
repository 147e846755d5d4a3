"""Styles as a person makes and uses them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.cli.test_commands import command, refused


def test_a_style_is_written_and_streams_as_its_bundle(tiny_bundle: Path, other_bundle: Path, tmp_path: Path) -> None:
    style = tmp_path / "ink.safetensors"
    result = command("restyle", tiny_bundle, "--from", other_bundle, "--out", style)
    assert result.returncode == 0, result.stderr
    assert re.search(r"ink\.safetensors: \d+ of \d+ weights, \d+ MB", result.stdout)
    assert "exists already" in refused("restyle", tiny_bundle, "--from", other_bundle, "--out", style)

    source = ["-i", "test-pattern:64x64@25,10", "--backend", "onnxruntime", "--prompt", "a red fox"]
    for name, words in (("styled", [tiny_bundle, "--restyle", style]), ("other", [other_bundle])):
        assert command("run", *words, *source, "-o", f"{tmp_path}/{name}/").returncode == 0
    names = sorted(path.name for path in (tmp_path / "other").iterdir())
    assert len(names) == 10
    assert all((tmp_path / "styled" / name).read_bytes() == (tmp_path / "other" / name).read_bytes() for name in names)


def test_random_weights_make_a_style(tiny_bundle: Path, tmp_path: Path) -> None:
    style = tmp_path / "noise.safetensors"
    result = command("restyle", tiny_bundle, "--random-weights", "--seed", 4, "--out", style)
    assert result.returncode == 0, result.stderr
    assert style.stat().st_size > 1_000_000


def test_a_style_has_one_source(tiny_bundle: Path, tmp_path: Path) -> None:
    restyle = ["restyle", tiny_bundle, "--out", tmp_path / "style.safetensors"]
    assert "or --from BUNDLE, or --random-weights" in refused(*restyle)
    assert "is made from" in refused(*restyle, "--from", tiny_bundle, "--random-weights")
    assert "--motion is missing" in refused(*restyle, "--base", "x/y")
    assert list(tmp_path.iterdir()) == []
