"""Textual inversion (Gal et al., arXiv 2208.01618): a token of one's own, and the embeddings that were learned for it.

The tokenizer and the text encoder get one token for each vector, named as diffusers names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextModel

from live2diff_trt.bundle.learned_tokens import name_vector
from live2diff_trt.export.checkpoint_file import read_pickled, read_tensors
from live2diff_trt.export.errors import CheckpointError

# Of the AUTOMATIC1111 web UI: all that its .safetensors holds, and where its .pt has the vectors.
_NAMELESS_KEY, _NESTED_KEY = "emb_params", "string_to_param"
_NAME_IT = "Name it, as in --textual-inversion FILE:TOKEN"
_OTHER_NAME = "Give the embedding another token, in lower case, as in --textual-inversion FILE:TOKEN"


@dataclass(frozen=True)
class TextualInversion:
    """A token and what was learned for it.

    Attributes:
        origin: its file, for messages.
        token: how a prompt names it.
        vectors: [vectors, channels], as stored.
    """

    origin: str
    token: str
    vectors: Tensor

    @property
    def tokens(self) -> tuple[str, ...]:
        """What the tokenizer calls each of the vectors."""
        return tuple(name_vector(self.token, index) for index in range(len(self.vectors)))


def read_textual_inversion(path: Path, token: str | None = None) -> TextualInversion:
    """Read ``{token: vectors}``, as diffusers saves it, or one of the layouts of the AUTOMATIC1111 web UI.

    Args:
        path: .safetensors, or a pickled file without code.
        token: instead of the file's own.

    Raises:
        CheckpointError: if the file can't be read, is something else, or names no token and none was given.
    """
    content = read_tensors(path) if path.suffix == ".safetensors" else read_pickled(path)
    try:
        own_token, vectors = _find_vectors(content)
    except (ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no textual inversion of one text encoder: it holds {', '.join(map(str, content)) or 'nothing'}",
            "Use one for Stable Diffusion 1.5, as diffusers or the AUTOMATIC1111 web UI saves it",
        ) from error
    name = own_token if token is None else token
    if not isinstance(name, str) or not name.strip():
        raise CheckpointError(f"the textual inversion {path} does not say its token", _NAME_IT)
    if not isinstance(vectors, Tensor) or vectors.ndim not in {1, 2} or not vectors.numel():
        shape = list(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise CheckpointError(
            f"the vectors of {path} are {shape}, not [vectors, channels]", "Use one for Stable Diffusion 1.5"
        )
    return TextualInversion(str(path), name, torch.atleast_2d(vectors.detach()))


def _find_vectors(content: Mapping[Any, Any]) -> tuple[Any, Any]:
    """Return the token, if the layout has one, and the vectors; raise ValueError or AttributeError if it is unknown."""
    if _NESTED_KEY in content:
        (vectors,) = content[_NESTED_KEY].values()
        return content.get("name"), vectors
    ((token, vectors),) = content.items()
    return None if token == _NAMELESS_KEY else token, vectors


def teach_tokenizer(tokenizer: Tokenizer, inversion: TextualInversion) -> None:
    """Add the tokens of all vectors, in place.

    Raises:
        CheckpointError: if the tokenizer knows one of them already, or would not find them in a prompt.
    """
    # A second vector would be taken for this token's, even if it has but one.
    names = dict.fromkeys((*inversion.tokens, name_vector(inversion.token, 1)))
    if taken := [name for name in names if _is_known(tokenizer, name)]:
        raise CheckpointError(
            f"{inversion.origin} can't be called {inversion.token}: the tokenizer knows {', '.join(taken)} already",
            _OTHER_NAME,
        )
    tokenizer.add_tokens(list(inversion.tokens))
    for name in inversion.tokens:
        found = tokenizer.encode(name, add_special_tokens=False)
        is_found = found.ids == [tokenizer.token_to_id(name)]
        # The others are looked for by the name that the tokenizer spells, without capitals.
        if not is_found or (len(inversion.tokens) > 1 and found.tokens != [name]):
            raise CheckpointError(
                f"the tokenizer reads the token {name!r} of {inversion.origin} as {' '.join(found.tokens)!r}",
                _OTHER_NAME,
            )


def _is_known(tokenizer: Tokenizer, name: str) -> bool:
    """Whether a token is called that, or one that was added is written that way, in other letters' case."""
    ids = tokenizer.encode(name, add_special_tokens=False).ids
    is_added = len(ids) == 1 and ids[0] in tokenizer.get_added_tokens_decoder()
    return is_added or tokenizer.token_to_id(name) is not None


def teach_text_encoder(model: CLIPTextModel, tokenizer: Tokenizer, inversion: TextualInversion) -> None:
    """Write the vectors to where the tokenizer, which was taught the same, looks for them, in place.

    Raises:
        CheckpointError: if they are of another width than the text encoder.
    """
    channels = model.config.hidden_size
    if inversion.vectors.shape[1] != channels:
        raise CheckpointError(
            f"{inversion.origin} has {inversion.vectors.shape[1]} channels, the text encoder {channels}",
            "Use a textual inversion that was trained for the base model's family",
        )
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[name] for name in inversion.tokens]
    model.resize_token_embeddings(max(model.config.vocab_size, max(ids) + 1), mean_resizing=False)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[ids] = inversion.vectors.to(table.dtype)
