"""Caption encoder: a closed-vocabulary tokenizer and a small CLIP text model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from stdiff.birads.lexicon import VOCABULARY
from stdiff.config.generator import TextConfig

_SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
# Words of captions besides the lexicon's terms.
_JOINING = ("BI-RADS", "shape", "orientation", "margin", "posterior", "calcifications", "no", ",:")


def build_tokenizer(config: TextConfig) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of all words and punctuation of captions and of the template."""
    terms = chain.from_iterable(VOCABULARY.values())
    own = re.sub(r"{\w+}", " ", config.template)
    words = sorted(set(re.findall(r"[\w-]+|[,:]", " ".join([*terms, *_JOINING, own]).lower())))
    vocabulary = {word: i for i, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")]
        + [pre_tokenizers.Split(":", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>",
        special_tokens=[("<start>", vocabulary["<start>"]), ("<end>", vocabulary["<end>"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=config.tokens,
        pad_token="<pad>",
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unknown>",
    )


def build_text_encoder(
    config: TextConfig, tokenizer: PreTrainedTokenizerFast, seed: int
) -> CLIPTextModel:
    """Untrained CLIP text model of the configured size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.width,
                intermediate_size=4 * config.width,
                projection_dim=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.tokens,
                pad_token_id=tokenizer.pad_token_id,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )


def tokenize(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str]) -> torch.Tensor:
    """(B, L) token ids, padded to the model's length.

    Raises:
        ValueError: a word outside the vocabulary, or a caption longer than the model's input.
    """
    ids = tokenizer(list(captions), padding="max_length", return_tensors="pt").input_ids
    if ids.shape[1] > tokenizer.model_max_length:
        longest = max(captions, key=len)
        raise ValueError(f"caption longer than {tokenizer.model_max_length} tokens: {longest!r}")
    # CLIP's tokenizer splits unknown words; its unknown token is the end token.
    closed = tokenizer.unk_token_id not in (None, tokenizer.eos_token_id)
    if closed and (ids == tokenizer.unk_token_id).any():
        raise ValueError(f"caption outside the vocabulary among {sorted(set(captions))[:5]}")
    return ids
