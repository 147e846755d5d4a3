"""Tokenizers of CLIP's form. A bundle carries one as tokenizer.json, and the run time needs nothing else to read it.

CLIP (Radford et al., arXiv 2103.00020) spells text in bytes (Radford et al., "Language Models are Unsupervised
Multitask Learners", 2019) and merges them by byte pair encoding (Sennrich et al., arXiv 1508.07909).
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

TextKind = Literal["tiny", "clip-vit-l"]
START_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
CLIP_VOCABULARY = 49408
"""Tokens of CLIP's vocabulary; the last two are the start and the end of a text."""

_END_OF_WORD = "</w>"
_PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_WORDS = """
a an the of in on at and with by from over under near made like to for through 's
photo picture painting drawing sketch portrait landscape illustration anime manga cartoon comic watercolor watercolour
oil ink pencil pixel art style pop impressionist cyberpunk steampunk fantasy retro vintage futuristic surreal abstract
minimalist realistic gothic film noir disney ghibli van gogh monet
street city forest mountain beach sea ocean river lake desert garden house castle room kitchen night day sunset
sunrise sky snow rain storm fog fire water space planet moon sun stars light lights shadow neon
red orange yellow green blue purple pink brown black white grey gold silver dark bright warm cold colorful
colourful pastel
wood stone metal glass paper clay marble bronze wool silk leather plastic lego
cat dog bird horse fox wolf bear rabbit lion tiger fish dragon butterfly robot
person man woman boy girl child people face hair eyes hand dress knight wizard samurai astronaut king queen dancing
walking running sitting standing smiling wearing
beautiful detailed quality best masterpiece high low sharp soft cinematic dramatic elegant cute old young new little
big lighting background texture
"""


def make_tokenizer(kind: TextKind) -> Tokenizer:
    """Make the tokenizer of a random text encoder. It neither pads nor truncates: the run time does.

    ``tiny`` knows the words that prompts are made of, one token each, and spells all others. ``clip-vit-l`` has
    CLIP's ids for the start and the end of a text and its vocabulary's size, **but not its vocabulary**, which comes
    with real weights alone: it spells every text in bytes (ids 0 to 511, as CLIP's), and the other ids are never used.
    """
    merges = _learn_merges(tuple(_WORDS.split())) if kind == "tiny" else ()
    tokens = [*_spell_all_bytes(), *("".join(pair) for pair in merges)]
    if kind == "clip-vit-l":
        tokens += [f"<|unused{index}|>" for index in range(len(tokens), CLIP_VOCABULARY - 2)]
    return assemble_tokenizer([*tokens, START_TOKEN, END_TOKEN], list(merges))


def assemble_tokenizer(tokens: list[str], merges: list[tuple[str, str]]) -> Tokenizer:
    """Make a tokenizer of CLIP's form from its tokens, in the order of their ids, and its merges, first come first."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix=_END_OF_WORD))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START_TOKEN} $A {END_TOKEN}",
        special_tokens=[(token, vocabulary[token]) for token in (START_TOKEN, END_TOKEN)],
    )
    # Ġ is the byte-level spelling of a space. Decoded text ends in one: tokenizers' Strip fails on an empty text.
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_END_OF_WORD, "Ġ"), decoders.ByteLevel()])
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    return tokenizer


def _spell_all_bytes() -> list[str]:
    """Return every byte inside a word, then every byte at a word's end, in the order of CLIP's ids."""
    spelled = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*spelled, *(symbol + _END_OF_WORD for symbol in spelled)]


@cache
def _learn_merges(words: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Merge the most frequent pair of symbols (of equals the first in the alphabet) until every word is one symbol."""
    spellings = [[*word[:-1], word[-1] + _END_OF_WORD] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for spelling in spellings for pair in pairwise(spelling)):
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        spellings = [_merge(spelling, merges[-1]) for spelling in spellings]
    return tuple(merges)


def _merge(spelling: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in spelling:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
