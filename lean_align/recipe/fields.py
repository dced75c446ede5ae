"""Every key of a recipe, with its default, its range and what it means; those of trainings are in `trainers`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lean_align.recipe.field_kinds import LATER, choice, number, switch
from lean_align.recipe.trainers import TrainingRecipe, WarmupRecipe


@dataclass(frozen=True)
class RolloutRecipe:
    """Sampling, everywhere that completions are sampled: warm-up, rollouts and training."""

    num_generations: int = number(8, 2)
    """Completions per prompt (G)."""
    allocation: str = choice("fixed", "sequential", "predicted")
    """`fixed`: G completions of every prompt; `sequential`: first_generations of every prompt, the rest only where
    the first rewards differ, and success rates estimated without bias; `predicted`: G completions of a share of the
    prompts, then, in rounds, of those that are likeliest to be among the best selection.n."""
    first_generations: int = number(4, 2)
    """Completions that `sequential` draws first; less than num_generations."""
    share: float = number(0.15, 0.01, 1.0, **LATER)
    """Of `predicted`: share of the prompts that is sampled first, spread over the space of their hidden states; 1 is
    all of them, as with `fixed`."""
    budget_share: float = number(0.4, 0.01, 1.0, **LATER)
    """Of `predicted`: the most prompts that are sampled in all, as a share; less than `share` means no rounds."""
    temperature: float = number(1.0, 0.01, 10.0)
    """Sampling temperature; log-probabilities in gradients are taken at it too."""
    max_new_tokens: int = number(512, 1)
    """Longest completion, in tokens. 64 where a recipe names none and the model is `demo`."""
    batch_size: int = number(64, 1)
    """Completions decoded at the same time; the noise is each completion's own, rounding the batch's."""
    window: int = number(512, 1)
    """Completions that share a continuous batch and are written together: the most that a killed run loses. The batch
    runs empty at the end of each, so it should be several times batch_size."""
    engine: str = choice("auto", "transformers", "vllm")
    """What samples rollouts, evaluation and trainings by lean. `auto`: vllm where there is a card and it is
    installed."""
    vllm_adapter: str = choice("auto", "merged", "request")
    """vllm reads whole weights in place of 4-bit ones. `merged`: the adapter is added to them, in float32;
    `request`: it stays separate from them, in model.dtype; `auto`: request on a card, merged on a CPU, where requests
    are slow."""

    @property
    def predicts(self) -> bool:
        """Whether only prompts that are predicted to be chosen are sampled, after a first share."""
        return self.allocation == "predicted" and self.share < 1

    def sampled_of(self, n_pool: int) -> tuple[int, int]:
        """How many prompts of a pool are sampled at once, and how many in all at most."""
        if not self.predicts:
            return n_pool, n_pool
        shares = self.share, max(self.share, self.budget_share)
        first, most = (min(n_pool, max(2, math.ceil(round(share * n_pool, 6)))) for share in shares)
        return first, most


@dataclass(frozen=True)
class ModelRecipe:
    """The base model, which stays frozen."""

    name: str = "demo"
    """A hub id, a local folder, or `demo` for the model inside the package."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    quantization: str = choice("nf4", "none")
    """`nf4`: 4-bit NormalFloat with double quantisation (bitsandbytes); `none`: weights in `dtype`."""
    dtype: str = choice("bfloat16", "float32")
    """Type of activations and of weights that are not quantised; float32 where a recipe names none and the model is
    `demo`."""
    device: str = choice("auto", "cpu", "cuda")
    """`auto` uses CUDA where there is a card."""


@dataclass(frozen=True)
class LoraRecipe:
    """The adapter: the only weights that are trained, and the ones gradients are taken over."""

    r: int = number(16, 1)
    """Rank."""
    alpha: int = number(32, 1)
    """Scale; the update is multiplied by alpha / r."""
    target_modules: str = "all-linear"
    """`all-linear`, or module names separated by commas."""


@dataclass(frozen=True)
class DataRecipe:
    """Where prompts come from, and how they are put to the model."""

    train_path: str = "demo"
    """A local .jsonl, .json, .csv, .tsv or .parquet, a folder of them or a pattern (`shards/*.parquet`), a hub id,
    `demo` for generated problems, or `testbed` for the pool."""
    test_path: str | None = "demo"
    """The held-out set, likewise; null where evaluation.benchmarks take its place."""
    prompt_field: str | None = None
    """Column that holds the question, or a dotted path into one, such as `extra.question`; when null the first of
    prompt, question and problem that has a value."""
    answer_field: str | None = None
    """Likewise the answer; when null the first of answer, reward_model.ground_truth, answerKey, cop and
    solution."""
    config: str | None = None
    """Configuration of a hub data set; subfolder of a local one."""
    train_split: str = "train"
    """Split of a hub data set to select from; of a folder whose files are named after splits likewise."""
    test_split: str = "test"
    """Split of a hub data set to evaluate on, likewise."""
    limit: int | None = number(None, 1)
    """Use a seeded random subset of this many training prompts; all when null."""
    test_limit: int | None = number(None, 1)
    """Likewise for the held-out set; the same problems for every seed."""
    prompt_format: str = choice("chat", "plain")
    """`chat` puts the prompt through the tokenizer's chat template; `plain` takes it as it is."""
    system_prompt: str | None = None
    """System message before each prompt; chat format only."""
    prompt_template: str = "{prompt}"
    """Text put to the model; `{prompt}` stands for the question."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Variables for the chat template by name, such as `enable_thinking: false`; chat format only."""
    max_prompt_tokens: int | None = number(None, 1)
    """Longest training prompt, with template and system prompt; one that leaves no room for a completion in the model's
    context is left out in any case."""
    chinese: str = choice("keep", "drop")
    """Training prompts with Chinese characters: `keep`, or `drop`, each with its reason."""
    contamination: str = choice("keep", "drop", "drop_exact", "off")
    """Training prompts that the held-out set or a benchmark also contains. `keep`: only listed and reported; `drop`:
    left out, exact and near matches; `drop_exact`: left out where they match exactly; `off`: not looked for."""
    demo_train: int = number(320, 1)
    """Number of generated training problems (`train_path: demo`)."""
    demo_test: int = number(500, 1)
    """Number of generated held-out problems (`test_path: demo` or `testbed`)."""
    demo_grade_weights: tuple[float, ...] = (2.0, 1.0, 1.0, 1.0, 1.0)
    """Relative frequency of problems with 1, 2, 3, 4 and 5 steps, in both splits."""


@dataclass(frozen=True)
class PoolRecipe:
    """Prompts by kind that `data.train_path: testbed` generates; `test_path: testbed` asks the target alone."""

    target: int = number(120, 0)
    """Prompts of the distribution that the evaluation is drawn from."""
    target_families: tuple[str, ...] = ("boxes", "share", "trip")
    """Stories of that distribution: purse, boxes, chain, share, trip."""
    target_grades: tuple[int, ...] = (2, 3, 4)
    """Its numbers of steps, from 1 to 5."""
    too_easy: int = number(250, 0)
    """Prompts that the embedded model solves nearly always."""
    too_hard: int = number(330, 0)
    """Prompts that it solves nearly never."""
    long_winded: int = number(100, 0)
    """Distractors with long solutions."""
    unlike: int = number(120, 0)
    """Prompts that can be learned and are unlike the target."""
    near_duplicates: int = number(80, 0)
    """Prompts that repeat one another except for names and things; a multiple of duplicates_of_each."""
    duplicates_of_each: int = number(8, 2, 12)
    """How many near-duplicates one problem gives; there are 12 names."""
    wrong_share: float = number(0.03, 0.0, 1.0)
    """Share of the whole pool whose gold answer is wrong."""


@dataclass(frozen=True)
class GradientRecipe:
    """Gradient of each prompt and its projection."""

    loss: str = choice("grpo", "dr_grpo")
    """Of the scored gradients, not of the trainings. `grpo`: each completion's mean over its tokens, advantages divided
    by the group's spread; `dr_grpo`: sum over tokens, divided by rollouts.max_new_tokens, advantages only centred."""
    rollouts: str = choice("all", "one_correct")
    """`all`: the group's completions; `one_correct`: its first correct one, with advantage 1 (the paper's choice for
    DAPO-MATH-17K)."""
    precondition: str = choice("none", "adam")
    """`adam`: each entry divided by the root of the second moment of the warm-up's optimiser, plus 1e-8; needs
    a warm-up with adamw_torch."""
    projection: str = choice("sjlt", "rademacher", "trak")
    """Kind of random projection; see docs/method.md."""
    sjlt_nonzeros: int = number(1, 1, 64)
    """Non-zeros per column of `sjlt`; must divide proj_dim. 1 is the count sketch."""
    proj_dim: int = number(8192, 1)
    """Length of a projected row (k)."""
    second_seed: bool = False
    """Also project with a second seed, into gradients/second_seed: scores then tell whether proj_dim is large
    enough."""
    share_prompt: bool = True
    """Compute the prompt of a group once, with its completions packed after it; false repeats it for each, padded. In
    trainings by lean too."""
    token_budget: int = number(4096, 1)
    """Tokens per forward and backward pass: of completions, or with prompts and padding where share_prompt is false;
    one completion always fits."""
    logprob_chunk: int = number(1024, 1)
    """Token positions whose logits exist at the same time, in trainings by lean too."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""


@dataclass(frozen=True)
class SelectionRecipe:
    """The choice of prompts to train on."""

    method: str = "learnalign"
    """`learnalign`, `random`, `full` (the whole pool), or another from docs/selection.md, or one of your own."""
    n: int = number(1000, 1)
    """How many prompts to keep; `full` keeps all. 64 where a recipe names none and the model is `demo`."""
    num_generations: int | None = number(None, 2)
    """Completions per prompt that success rates and gradients are taken from; rollouts.num_generations when null, which
    the trainings draw in any case."""
    rounds: int = number(1, 1)
    """Rounds that the final training is divided into. Before each but the first, completions and gradients are taken
    again from the current adapter and the subset is chosen again."""
    curve_epochs: int = number(3, 1)
    """Passes over the whole pool in the training whose reward curves `limr` reads."""
    whiten_ridge: float = number(0.002, 1e-4, 1e4, **LATER)
    """Of `learnalign-whitened`: what is added to each eigenvalue of the gradients' second moment, as a multiple of its
    trace. A direction that holds a larger share of the trace counts less; a large ridge leaves all as they are."""
    target: str | None = field(default=None, metadata=LATER)
    """Problems of what is wanted, with answers, for methods that aim at them, such as `learnalign-target`: a file, as
    data.train_path takes it, or a hub id; `held-out:N`, N rows of the training data that are then not chosen from;
    `testbed:N`, N generated problems of the pool's target kind. Other methods take no notice of it."""
    online: bool = switch(False, **LATER)
    """Draw each step's prompts from the whole pool by what the training has found out so far, in place of a choice
    before it: the method is then `online`, and training.keep_rows true. Of lean alone."""
    online_score: str = choice("learnalign", "learnability", **LATER)
    """What online draws by: `learnalign`, learnability times alignment with the mean gradient of the prompts met;
    `learnability` alone."""
    online_discount: float = number(0.95, 0.01, 1.0, **LATER)
    """What evidence of a prompt keeps of its weight per step, as the policy moves."""
    online_exploration: float = number(0.1, 0.0, 1.0, **LATER)
    """Share of prompts that online draws whatever their score."""
    online_prior_strength: float = number(2.0, 0.01, **LATER)
    """Completions that the pool's mean success rate is worth as what is believed of a prompt that was not met."""


@dataclass(frozen=True)
class EvaluationRecipe:
    """Evaluation on the held-out set, decoded greedily, and on benchmarks, each by its own protocol."""

    benchmarks: tuple[str, ...] = ()
    """Names of benchmarks: gsm8k, math500, amc2023, aime2024, crux, crux-input, or one of your own."""
    data_dir: str | None = None
    """Folder with the benchmarks' files, gsm8k/test.jsonl and so on; from the hub when null."""
    limit: int | None = number(None, 1)
    """Use a seeded random subset of this many problems of each benchmark; all when null. Of the run's own held-out set
    data.test_limit says how many."""
    num_samples: int = number(8, 1)
    """Completions per problem (k of avg@k) where a benchmark is sampled: AMC and AIME. The others are greedy."""
    temperature: float = number(0.6, 0.01, 10.0)
    """Sampling temperature of those benchmarks."""
    top_p: float = number(0.95, 0.01, 1.0)
    """Nucleus of those benchmarks: the smallest set of tokens whose probabilities add up to it; 1 is all."""
    batch_size: int = number(64, 1)
    """Problems decoded at the same time."""
    window: int = number(512, 1)
    """Problems that share a continuous batch and are written together."""
    max_new_tokens: int | None = number(None, 1)
    """Longest completion; when null as in rollouts, and a benchmark's own."""
    at_steps: tuple[int, ...] = field(default=(), metadata=LATER)
    """Optimiser steps of the final training whose adapters are kept and evaluated too, such as 5,10,20: how accuracy
    grows with what was spent. Where there is any, the start (step 0) and the last step are evaluated with them."""
    at_limit: int = number(200, 1, **LATER)
    """Problems of the held-out set, or of the first benchmark without one, that they are evaluated on; the same for
    every seed and method."""


@dataclass(frozen=True)
class CompareRecipe:
    """What `lean-align compare` puts side by side."""

    methods: tuple[str, ...] = ("learnalign", "random", "random-length-matched", "learnability", "alignment")
    """Methods as METHOD, METHOD@N for a size other than selection.n, and METHOD+KEY=VALUE (repeatable) for another
    recipe, such as learnalign@50+warmup.steps=0."""
    reference: str = "learnalign"
    """The method that every other is compared with."""
    primary: tuple[str, ...] = ("random", "random-length-matched", "learnability", "alignment")
    """Comparisons whose p-values are corrected as one family; the others form a second one."""


@dataclass(frozen=True)
class Recipe:
    """A whole run."""

    name: str = "custom"
    """Shown in the report, and the name of the run's folder under runs/; the file's stem when not given."""
    description: str = ""
    """What it is for, and how it departs from the paper."""
    seed: int = number(0, 0)
    """Everything random follows from it."""
    threads: int | None = number(None, 1)
    """CPU threads of each stage; torch's own choice when null."""
    model: ModelRecipe = ModelRecipe()
    """Base model."""
    lora: LoraRecipe = LoraRecipe()
    """Adapter."""
    data: DataRecipe = DataRecipe()
    """Prompts."""
    pool: PoolRecipe = PoolRecipe()
    """Make-up of a generated pool."""
    rollouts: RolloutRecipe = field(default_factory=RolloutRecipe)
    """Sampling."""
    warmup: WarmupRecipe = field(default_factory=WarmupRecipe)
    """Warm-up."""
    gradients: GradientRecipe = GradientRecipe()
    """Gradients and projection."""
    selection: SelectionRecipe = SelectionRecipe()
    """Selection."""
    training: TrainingRecipe = field(default_factory=TrainingRecipe)
    """Final training."""
    evaluation: EvaluationRecipe = EvaluationRecipe()
    """Evaluation."""
    compare: CompareRecipe = CompareRecipe()
    """Comparison of selection methods."""

    @property
    def selection_generations(self) -> int:
        """Completions per prompt that are drawn to choose."""
        return self.selection.num_generations or self.rollouts.num_generations

    @property
    def kept_steps(self) -> tuple[int, ...]:
        """Steps of the final training whose adapters are kept: not the start, nor the last, whose adapter is kept
        anyway."""
        return tuple(step for step in self.evaluation.at_steps if 0 < step < self.training.steps)

    @property
    def evaluated_steps(self) -> tuple[int, ...]:
        """Steps that are evaluated, the start and the last among them; none where evaluation.at_steps names none."""
        steps = self.evaluation.at_steps
        return tuple(sorted({0, *steps, self.training.steps})) if steps else ()
