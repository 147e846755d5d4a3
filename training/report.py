"""The figures as tables, for the documentation."""

from __future__ import annotations

from live2diff_trt.benchmarks.markdown import write_table
from live2diff_trt.training.evaluate import DEFAULT_STEPS, Evaluation, Result


def write_report(evaluation: Evaluation) -> str:
    """Return Markdown: means over all styles, each style by itself, and the long stream."""
    return "\n\n".join(
        [
            _write_contestants(evaluation),
            _write_styles(evaluation),
            write_table(
                ["style", f"likeness lost in {evaluation.drift_frames} frames"],
                [[style, f"{drift:.2f} dB"] for style, drift in evaluation.drift_db.items()],
            ),
        ]
    )


def _write_contestants(evaluation: Evaluation) -> str:
    names = dict.fromkeys((result.contestant, result.steps) for result in evaluation.results)
    rows = []
    for name, steps in names:
        psnr_db, ssim, flicker = (evaluation.mean(name, figure, steps) for figure in ("psnr_db", "ssim", "flicker"))
        rows.append([name, str(steps), f"{psnr_db:.2f} dB", f"{ssim:.3f}", f"{1e3 * flicker:.2f}"])
    target = [result.target_flicker for result in evaluation.results if result.contestant == "cache"]
    rows.append(["the filters themselves", "", "", "", f"{1e3 * sum(target) / len(target):.2f}"])
    return write_table(["what a frame sees", "T", "PSNR", "SSIM", "flicker · 1000"], rows)


def _write_styles(evaluation: Evaluation) -> str:
    chosen = [one for one in evaluation.results if (one.contestant, one.steps) == ("cache", DEFAULT_STEPS)]
    header = ["style", "PSNR", "SSIM", "flicker · 1000", "of the filter"]
    return write_table(header, [_write_style(one) for one in chosen])


def _write_style(result: Result) -> list[str]:
    flicker, target = 1e3 * result.flicker, 1e3 * result.target_flicker
    return [result.style, f"{result.psnr_db:.2f} dB", f"{result.ssim:.3f}", f"{flicker:.2f}", f"{target:.2f}"]
