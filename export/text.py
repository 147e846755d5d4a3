"""The text encoder: CLIP's text model by kind, with random weights, and as a graph module.

CLIP is Radford et al., arXiv 2103.00020; the class is transformers' own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff_trt.export.errors import ExportError
from live2diff_trt.export.tensors import Tensors
from live2diff_trt.export.tokenizer import CLIP_VOCABULARY, END_TOKEN, START_TOKEN, TextKind, make_tokenizer
from live2diff_trt.model.weights import random_state_dict


def build_text_encoder(kind: TextKind) -> CLIPTextModel:
    """Build a text encoder with the configuration of its kind, on torch's default device.

    ``clip-vit-l`` is the text half of CLIP ViT-L/14 (768 channels); ``tiny`` has 2 layers of 32 channels.
    """
    return CLIPTextModel(_configure_clip_vit_l() if kind == "clip-vit-l" else _configure_tiny())


def _configure_clip_vit_l() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=CLIP_VOCABULARY - 2,
        eos_token_id=CLIP_VOCABULARY - 1,
    )


def _configure_tiny() -> CLIPTextConfig:
    tokenizer = make_tokenizer("tiny")
    return CLIPTextConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.token_to_id(START_TOKEN),
        eos_token_id=tokenizer.token_to_id(END_TOKEN),
    )


def random_text_encoder(kind: TextKind, seed: int, dtype: torch.dtype) -> CLIPTextModel:
    """Build a text encoder in evaluation mode with random weights that depend on the seed and each key alone."""
    with torch.device("meta"):
        model = build_text_encoder(kind)
    model.load_state_dict(random_state_dict(model, seed, dtype), assign=True)
    embeddings = _text_part(model).embeddings
    # Not a weight, so it is in no state dict.
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings)[None]
    return model.eval().requires_grad_(False)


def _text_part(model: CLIPTextModel) -> Any:
    """Return the module that has the embeddings and the layers: transformers 4 wraps it once more."""
    return getattr(model, "text_model", model)


class TextEncoderGraph(nn.Module):
    """Token ids → text embeddings: ``bundle.signature.text_encoder``.

    Args:
        model: in evaluation mode.
        clip_skip: how many of the last layers to leave out; the final norm is applied in any case.

    Raises:
        ExportError: if the model has no more than ``clip_skip`` layers.
    """

    def __init__(self, model: CLIPTextModel, clip_skip: int) -> None:
        super().__init__()
        self.model = model
        self.layers = model.config.num_hidden_layers - clip_skip
        if clip_skip < 0 or self.layers < 1:
            raise ExportError(
                f"clip_skip {clip_skip} does not fit a text encoder of {model.config.num_hidden_layers} layers",
                "Use 0 for all layers, as most styles do, or 1",
            )

    def forward(self, tensors: Tensors) -> Tensors:
        """Map (token_ids [rows, tokens] int32,) to (text_embeddings [rows, tokens, channels],).

        The layers are called one by one: transformers' own forward asks for a causal flag instead of a mask.
        """
        part = _text_part(self.model)
        hidden = part.embeddings.token_embedding(tensors[0]) + part.embeddings.position_embedding.weight
        mask = _causal_mask(hidden)
        for layer in part.encoder.layers[: self.layers]:
            hidden = hidden + _attend(layer.self_attn, layer.layer_norm1(hidden), mask)
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        return (part.final_layer_norm(hidden),)


def _causal_mask(hidden: Tensor) -> Tensor:
    """Return [tokens, tokens]: 0 where a token may look, −∞ at the tokens after it."""
    tokens = hidden.shape[1]
    return torch.full((tokens, tokens), -torch.inf, dtype=hidden.dtype, device=hidden.device).triu(1)


def _attend(attention: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    """Self-attention with CLIP's projections, [rows, tokens, channels] to the same."""
    query, key, value = (
        project(hidden).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return attention.out_proj(found.transpose(1, 2).flatten(2))
