"""Train the embedded model: a Llama of 1.9 M parameters on generated word problems.

Usage: python -m lean_align.demo.make_model OUT [--steps 3600] [--threads 2]

The demonstrations are a mixture: some answer at once, some work the problem out.  How often a story
is answered at once depends on its family (`DIRECT_SHARE`), so that the trained policy can reason step
by step and often does not, as real instruction-tuned models do.  Reinforcement learning has then
something to elicit.

Differs from a usual pre-training in: 1. every example is new (there is no epoch); 2. the loss is
taken on the solution only; 3. lengths are sorted inside a window of 16 batches to save padding; 4. for
the first 60 % of the steps every demonstration is worked out, because answers at once cannot be learned
beyond one step and slow the rest down.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lean_align.demo.problems import Problem, make_problem

SEED = 20250611
GRADE_WEIGHTS = {1: 0.20, 2: 0.25, 3: 0.30, 4: 0.20, 5: 0.05}
WORKED_ONLY = 0.6
DIRECT_SHARE = {"purse": 0.70, "boxes": 0.60, "chain": 0.55, "share": 0.50, "trip": 0.40}
VOCAB_SIZE = 512
BATCH, WINDOW = 64, 16
PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}<|end|>"
    "{% else %}<|user|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def demonstration(item: int, mixed: bool = True) -> tuple[Problem, str]:
    """Problem `item` of the training stream and the solution shown for it; worked out unless `mixed`."""
    rng = random.Random(f"lean_align/demonstration/{SEED}/{item}")
    grade = rng.choices(list(GRADE_WEIGHTS), list(GRADE_WEIGHTS.values()))[0]
    problem = make_problem(SEED, item, grade=grade)
    return problem, problem.direct if mixed and rng.random() < DIRECT_SHARE[problem.family] else problem.worked


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE of `VOCAB_SIZE` entries, every digit a token, trained on 5,000 problems."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    problems = (make_problem(SEED + 1, item) for item in range(5000))
    bpe.train_from_iterator((f"{p.question}\n{p.worked}" for p in problems), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token=PAD, eos_token=END, additional_special_tokens=[USER, ASSISTANT]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model() -> LlamaForCausalLM:
    """A fresh model; every linear width is a multiple of 64, as 4-bit blocks want it."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=3,
        )
    )


def batches(tokenizer: PreTrainedTokenizerFast, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield `steps` pairs (input_ids, labels), each (BATCH, length) int64, labels -100 off the solution."""
    for window in range(-(-steps // WINDOW)):
        rows = []
        mixed = window * WINDOW >= WORKED_ONLY * steps
        for item in range(window * WINDOW * BATCH, (window + 1) * WINDOW * BATCH):
            problem, solution = demonstration(item, mixed)
            prompt = tokenizer(f"{USER}{problem.question}{ASSISTANT}")["input_ids"]
            target = tokenizer(f"{solution}{END}")["input_ids"]
            rows.append((prompt + target, [-100] * len(prompt) + target))
        rows.sort(key=lambda row: len(row[0]))
        order = list(range(WINDOW))
        random.Random(f"lean_align/window/{SEED}/{window}").shuffle(order)
        for index in order[: steps - window * WINDOW]:
            chunk = rows[index * BATCH : (index + 1) * BATCH]
            width = len(chunk[-1][0])
            ids = torch.tensor([r + [0] * (width - len(r)) for r, _ in chunk])
            labels = torch.tensor([r + [-100] * (width - len(r)) for _, r in chunk])
            yield ids, labels


def train(out: Path, steps: int, peak_lr: float = 3e-3, warmup_steps: int = 100) -> dict[str, float]:
    """Train for `steps` batches of 64 and write model and tokenizer to `out` in bfloat16."""
    torch.manual_seed(SEED)
    tokenizer, model = make_tokenizer(), make_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak_lr, betas=(0.9, 0.95), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda s: min((s + 1) / warmup_steps, 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps))) + 0.01),
    )
    start, recent = time.monotonic(), 0.0
    for step, (ids, labels) in enumerate(batches(tokenizer, steps), start=1):
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        recent = loss.item() if step == 1 else 0.98 * recent + 0.02 * loss.item()
        if step % 100 == 0:
            print(
                f"step {step}/{steps} loss {recent:.4f} {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
            )
    model.bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {"steps": steps, "loss": round(recent, 4), "wall_seconds": round(time.monotonic() - start, 1)}


def main() -> None:
    """Parse the arguments, train, print what came out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(json.dumps(train(arguments.out, arguments.steps)))


if __name__ == "__main__":
    main()
