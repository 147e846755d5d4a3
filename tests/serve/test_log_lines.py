from __future__ import annotations

import json
import logging

from live2diff_trt.serve.log_lines import JsonLines


def test_a_record_is_one_line_of_json() -> None:
    try:
        raise ValueError("broken\nin two")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("live2diff_trt.serve", logging.WARNING, "x.py", 1, "a %s\nfäx", ("red",), info)
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "live2diff_trt.serve", "a red\nfäx")
    assert line["time"].endswith("+00:00")
    assert "ValueError: broken" in line["error"]
