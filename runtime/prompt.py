"""A prompt's way into the network begins here: text → token ids."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from live2diff_trt.bundle.errors import BundleError
from live2diff_trt.bundle.learned_tokens import name_all_vectors, name_vector
from live2diff_trt.bundle.manifest import PROMPT_PLACE, TOKENIZER_FILE, Bundle
from live2diff_trt.runtime.copied import copied

logger = logging.getLogger(__name__)


class PromptTokenizer:
    """The bundle's tokenizer, and the template of its style.

    Attributes:
        template: what every prompt but a negative one is put into.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._tokens = bundle.spec.prompt_tokens
        self._tokenizer = _open_tokenizer(bundle)
        self._learned = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        self.template = bundle.manifest.prompt_template

    def with_template(self, template: str) -> PromptTokenizer:
        """Return the same tokenizer with the template of another style."""
        return copied(self, template=template)

    def tokenize(self, prompt: str) -> NDArray[np.int32]:
        """Return token ids, [tokens] int32: start, text, end, and the end token again as padding, as CLIP pads.

        Warns where the prompt is too long, and says what was cut, and where a learned token is not written as it is
        named, so that of its vectors only the first is taken.
        """
        return self._tokenize(self.template.replace(PROMPT_PLACE, prompt))

    def tokenize_negative(self, prompt: str) -> NDArray[np.int32]:
        """Return the same of a negative prompt: the style's template says what is wanted, so it is not put into it."""
        return self._tokenize(prompt)

    def _tokenize(self, prompt: str) -> NDArray[np.int32]:
        text = self._name_vectors(prompt)
        encoding = self._tokenizer.encode(text)
        ids = list(encoding.ids)
        end = ids[-1]
        if len(ids) > self._tokens:
            first_cut, _ = encoding.offsets[self._tokens - 1]
            logger.warning(
                "the prompt has %d tokens, %d fit; what was cut: %r",
                len(ids) - 2,
                self._tokens - 2,
                text[first_cut:],
            )
            ids = [*ids[: self._tokens - 1], end]
        return np.array(ids + [end] * (self._tokens - len(ids)), np.int32)

    def _name_vectors(self, text: str) -> str:
        tokens = self._tokenizer.encode(text).tokens
        for token in dict.fromkeys(tokens):
            if token not in text and name_vector(token, 1) in self._learned:
                logger.warning("the prompt does not write %s like that: only the first of its vectors is taken", token)
        return name_all_vectors(text, tokens, self._learned)


def _open_tokenizer(bundle: Bundle) -> Tokenizer:
    path = bundle.file(TOKENIZER_FILE)
    try:
        return Tokenizer.from_file(str(path))
    # The library raises plain Exception, and nothing narrower, for a file it can't read.
    except Exception as error:
        raise BundleError(
            f"{path} is not a tokenizer ({error})", "Export the bundle again with `live2diff-trt export`"
        ) from error
