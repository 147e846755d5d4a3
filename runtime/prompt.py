"""A prompt's way into the network: text → token ids → text embeddings."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.manifest import TOKENIZER_FILE, Bundle
from live2diff_trt.engine.onnxruntime_backend import OnnxGraphs
from live2diff_trt.runtime.kv_ring import Array

logger = logging.getLogger(__name__)


class PromptEncoder:
    """The bundle's tokenizer and text encoder."""

    def __init__(self, bundle: Bundle, graphs: OnnxGraphs) -> None:
        self._tokens = bundle.spec.prompt_tokens
        self._tokenizer = _open_tokenizer(bundle)
        self._text_encoder = graphs.open("text_encoder")

    def encode(self, prompt: str) -> Array:
        """Return text embeddings, [1, tokens, channels]. Warns where the prompt is too long, and says what was cut."""
        ids = self.tokenize(prompt)
        return self._text_encoder.run({"token_ids": ids[None]})["text_embeddings"]

    def tokenize(self, prompt: str) -> NDArray[np.int32]:
        """Return token ids, [tokens] int32: start, text, end, and the end token again as padding, as CLIP pads."""
        encoding = self._tokenizer.encode(prompt)
        ids = list(encoding.ids)
        end = ids[-1]
        if len(ids) > self._tokens:
            first_cut, _ = encoding.offsets[self._tokens - 1]
            logger.warning(
                "the prompt has %d tokens, %d fit; what was cut: %r",
                len(ids) - 2,
                self._tokens - 2,
                prompt[first_cut:],
            )
            ids = [*ids[: self._tokens - 1], end]
        return np.array(ids + [end] * (self._tokens - len(ids)), np.int32)


def _open_tokenizer(bundle: Bundle) -> Tokenizer:
    path = bundle.file(TOKENIZER_FILE)
    try:
        return Tokenizer.from_file(str(path))
    # The library raises plain Exception, and nothing narrower, for a file it can't read.
    except Exception as error:
        raise BundleError(
            f"{path} is not a tokenizer ({error})", "Export the bundle again with `live2diff-trt export`"
        ) from error
