"""``live2diff-trt doctor``: says what this machine has, what it lacks, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from live2diff_trt.cli.backend_options import DeviceOption, FlavourOption, FormOption, PlansOption
from live2diff_trt.cli.choices import FlavourChoice, FormChoice
from live2diff_trt.cli.console import output
from live2diff_trt.engine.doctor import Finding, State, is_fit
from live2diff_trt.engine.tensorrt_options import TensorRTOptions
from live2diff_trt.runtime.doctor import examine

_MARKS: dict[State, str] = {"ok": "[green]ok     [/]", "warn": "[yellow]warn   [/]", "missing": "[bold red]missing[/]"}


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of a bundle that is to run here.")] = None,
    flavour: FlavourOption = FlavourChoice.auto,
    form: FormOption = FormChoice.in_segments,
    device: DeviceOption = 0,
    plans: PlansOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Examine this machine; exit 0 exactly if a run on its GPU will work, of the bundle if one is given."""
    options = TensorRTOptions(flavour=flavour.value, form=form.value, device=device, plans=plans)
    findings = examine(bundle, options)
    fit = is_fit(findings)
    if as_json:
        typer.echo(json.dumps({"fit": fit, "findings": [asdict(finding) for finding in findings]}))
    else:
        _show(findings, fit)
    raise typer.Exit(0 if fit else 1)


def _show(findings: Sequence[Finding], fit: bool) -> None:
    """Print a line for each finding, the remedy below it, and the verdict."""
    for finding in findings:
        line = f"{_MARKS[finding.state]}  {escape(finding.subject)}: {escape(finding.detail)}"
        output.print(line, soft_wrap=True, highlight=False)
        if finding.remedy:
            output.print(f"         [dim]→ {escape(finding.remedy)}[/]", soft_wrap=True, highlight=False)
    verdict = "A run on this GPU will work." if fit else "A run on a GPU will not work here before that is mended."
    output.print(verdict, soft_wrap=True, highlight=False)
