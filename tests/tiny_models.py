"""Model folders of a few thousand weights, with tokenizers of several kinds and any chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

CONTROLS = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<unk>")
PAD, BOS, EOS, START, END, UNKNOWN = range(6)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHATML
)
DROPS_SYSTEM = CHATML.replace("in messages %}", "in messages if m['role'] != 'system' %}")
THINKS = CHATML.replace(
    "assistant\n' }}", "assistant\n' }}{% if enable_thinking is false %}{{ '<think></think>' }}{% endif %}"
)
TEXTS = (
    "Ann has 12 apples and finds 7 more. How many apples does Ann have?",
    "  A box weighs 3.5 kg; what do 4 boxes weigh?  ",
    "Solve $x^2 - 5x + 6 = 0$.\n\n\tGive \\boxed{x}.",
    "été, naïve, 10 €, 数学 12, 😀 \u200b x",
    "if a < b and b > c: print('<p>|</p>')  # <|",
    "|im_end|> <| im_end |> <im_end> [INST]",
    "?",
    "Line\r\nline\u00a0end   three spaces",
)


def characters(**options: Any) -> Tokenizer:
    """A token a character."""
    letters = sorted({c for text in TEXTS for c in text} | set("abcdefghijklmnopqrstuvwxyz0123456789.:\n{}/_<>|-"))
    found = Tokenizer(models.WordLevel({t: i for i, t in enumerate([*CONTROLS, *letters])}, "<unk>"))
    found.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    found.decoder = decoders.Fuse()
    return found


def byte_pairs() -> Tokenizer:
    """Merges of bytes, as GPT-2's and Qwen's."""
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return _trained(found, trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), vocab_size=420)


def words_with_spaces() -> Tokenizer:
    """Merges with a mark for the space, put in front of the first word alone, as Mistral's."""
    found = Tokenizer(models.BPE(byte_fallback=False, unk_token="<unk>", fuse_unk=True))
    found.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    found.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    return _trained(found, trainers.BpeTrainer, vocab_size=300)


def words_with_a_prefix() -> Tokenizer:
    """The same with the mark put in front of every stretch of text, as Llama 2's."""
    found = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return _trained(found, trainers.BpeTrainer, vocab_size=300)


def pieces() -> Tokenizer:
    """Pieces by likelihood, as T5's and Gemma's first; a lower-case normaliser in front."""
    found = Tokenizer(models.Unigram())
    found.normalizer = normalizers.Lowercase()
    found.pre_tokenizer = pre_tokenizers.Metaspace()
    found.decoder = decoders.Metaspace()
    return _trained(found, trainers.UnigramTrainer, vocab_size=150, unk_token="<unk>")


KINDS = (characters, byte_pairs, words_with_spaces, words_with_a_prefix, pieces)


def _trained(tokenizer: Tokenizer, trainer: Any, **options: Any) -> Tokenizer:
    tokenizer.train_from_iterator(
        [*TEXTS, *TEXTS], trainer(special_tokens=list(CONTROLS), show_progress=False, **options)
    )
    return tokenizer


def wrapped(tokenizer: Tokenizer, template: str | None = CHATML, **names: Any) -> PreTrainedTokenizerFast:
    """As transformers has it; `names` are pad_token, bos_token, eos_token, None for none."""
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in CONTROLS])
    usual = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<|im_end|>"}
    chosen = {key: value for key, value in {**usual, **names}.items() if value is not None}
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **chosen)
    found.chat_template = template
    return found


def save_model(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    generation: dict[str, Any] | None = None,
    weights: bool = False,
    **config: Any,
) -> Path:
    """A folder with tokenizer and configuration; with `weights` a Llama of random numbers that can be run."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": BOS, "eos_token_id": END, "pad_token_id": PAD}
    made = LlamaConfig(
        **{"vocab_size": len(tokenizer), "max_position_embeddings": 512, "initializer_range": 0.2, **sizes, **ids}
        | config
    )
    tokenizer.save_pretrained(folder)
    if weights:
        import torch
        from transformers import LlamaForCausalLM

        torch.manual_seed(3)
        LlamaForCausalLM(made).save_pretrained(folder)
        (folder / "generation_config.json").unlink()
    else:
        made.save_pretrained(folder)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder
