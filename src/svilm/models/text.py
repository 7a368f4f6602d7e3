"""The text encoder: BERT, of which only the [CLS] state is used (sections 3.1 and 4.2)."""

from typing import Any

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
    """Word pieces to one state per text, by transformers' BertModel.

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
                "cut them, or raise text.positions"
            )
        # Four axes: BertModel takes such a mask as it is; it would wait for the device to look at a 2-d one.
        state: Tensor = self.bert(input_ids=ids, attention_mask=mask[:, None, None]).last_hidden_state[:, 0]
        return state


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
