"""The text encoder: BERT, of which only the [CLS] state is used (sections 3.1 and 4.2).

The weights live in transformers' BertModel, under the names that published checkpoints have.  The layers are run
from here, because BertModel computes the last one for every word piece and we look at the first of them only.

Shapes: U texts, L word pieces, D width, H heads.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from svilm.config import Config


class TextEncoderConfig(Config):
    """Shape of BERT; the defaults are BERT-base."""

    vocabulary: PositiveInt = 30522
    """Number of word pieces; set from the tokenizer when a run is put together."""
    width: PositiveInt = 768
    """Width of the states."""
    depth: PositiveInt = 12
    """Number of layers."""
    heads: PositiveInt = 12
    """Attention heads per layer."""
    positions: PositiveInt = 512
    """Longest text in word pieces, [CLS] and [SEP] included."""
    initial_std: float = Field(0.02, gt=0)
    """Standard deviation of the weights before training; narrow models learn faster from a larger one."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout of states and attention while training."""


class TextEncoder(nn.Module):
    """Word pieces to one state per text: BERT with the weights of transformers' BertModel.

    Raises ValueError when the settings contradict each other or a text is longer than `positions`.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        from transformers import BertModel

        self.config = config
        self.bert = BertModel(bert_config(config), add_pooling_layer=False)

    def forward(
        self, ids: Int[Tensor, "texts length"], mask: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts width"]:
        """Word piece numbers and their mask (true = real), both (U, L) -> [CLS] states (U, D)."""
        if ids.shape[1] > self.config.positions:
            raise ValueError(
                f"texts of {ids.shape[1]} word pieces, but the text encoder has {self.config.positions} positions; "
                "lower data.language.max_length, or raise model.text.positions"
            )
        everywhere = mask[:, None, None]  # (U, 1, 1, L): the same for all heads and queries
        states = self._words(ids)
        layers = self.bert.encoder.layer
        for layer in layers[:-1]:
            states = self._layer(layer, states, states, everywhere)
        return self._layer(layers[-1], states[:, :1], states, everywhere).squeeze(1)

    def _words(self, ids: Int[Tensor, "texts length"]) -> Float[Tensor, "texts length width"]:
        """(U, L) -> states before the first layer (U, L, D): the word, its position, and that it is of one sentence."""
        words = self.bert.embeddings
        first_sentence = words.token_type_embeddings.weight[0]
        states = words.word_embeddings(ids) + (words.position_embeddings.weight[: ids.shape[1]] + first_sentence)
        return self._drop(words.LayerNorm(states))

    def _layer(
        self,
        layer: Any,
        asking: Float[Tensor, "texts asking width"],
        states: Float[Tensor, "texts length width"],
        mask: Bool[Tensor, "texts 1 1 length"],
    ) -> Float[Tensor, "texts asking width"]:
        """One layer of transformers for the states that are ``asking``, some or all of ``states``."""
        attention = layer.attention.self
        heads = self.config.heads
        weight = torch.cat([attention.key.weight, attention.value.weight])
        bias = torch.cat([attention.key.bias, attention.value.bias])
        query = attention.query(asking).unflatten(-1, (heads, -1)).transpose(1, 2)
        key, value = F.linear(states, weight, bias).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.config.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        read = layer.attention.output.dense(read.transpose(1, 2).flatten(2))
        asking = layer.attention.output.LayerNorm(asking + self._drop(read))
        inner = layer.output.dense(F.gelu(layer.intermediate.dense(asking)))
        out: Tensor = layer.output.LayerNorm(asking + self._drop(inner))
        return out

    def _drop(self, states: Float[Tensor, "texts some width"]) -> Float[Tensor, "texts some width"]:
        return F.dropout(states, self.config.dropout, self.training)


def bert_config(config: TextEncoderConfig) -> Any:
    """transformers' BertConfig of a text encoder."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        max_position_embeddings=config.positions,
        initializer_range=config.initial_std,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
