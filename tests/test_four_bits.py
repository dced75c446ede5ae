"""How much of a model is really in 4 bits: said, kept, and planned as it is loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from bitsandbytes.nn.modules import Linear4bit
from small_models import load, recipe_of, save_model

from lean_align.machine import plan as making
from lean_align.pipeline.engines import keep_share
from lean_align.policy.four_bits import share_4bit, shortfall
from lean_align.policy.shapes import shape_policy


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of a model by its kind; each is made once."""
    folder = tmp_path_factory.mktemp("models")
    return lambda kind: save_model(kind, folder / kind)


def packed(policy) -> list[tuple[str, int, int]]:
    """Name and sizes of every layer in 4 bits."""
    layers = ((n, m) for n, m in policy.causal_lm.named_modules() if isinstance(m, Linear4bit))
    return [(name, layer.in_features, layer.out_features) for name, layer in layers]


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("llama", 1.0),
        ("llama-tied", 1.0),
        ("gpt2", 1.0),
        ("mixtral", 0.2),
        ("qwen3_moe", 0.2),
        ("gpt_oss", 0.2),
        ("deepseek_v3", 0.35),
    ],
)
def test_the_plan_packs_what_loading_packs(models, capsys, kind, share):
    recipe = recipe_of(models(kind), "nf4")
    policy = load(models(kind), quantization="nf4", fresh=True)
    shapes = shape_policy(recipe.model, recipe.lora, 10)
    assert share_4bit(policy.causal_lm) == share_4bit(shapes.causal_lm)
    assert policy.share_4bit == share_4bit(policy.causal_lm)[0] == pytest.approx(share, abs=0.01)
    assert packed(policy) == packed(shapes)
    assert policy.lora_parameters.keys() == shapes.lora_parameters.keys()
    said = "of the layers' weights are in 4 bits" in capsys.readouterr().err
    assert said == (share < 0.9)


def test_nothing_is_said_where_4_bits_were_not_asked_for(models, capsys):
    assert load(models("mixtral")).share_4bit is None
    assert "4 bits" not in capsys.readouterr().err


def test_the_line_has_share_and_bytes():
    assert shortfall("a/model", 0.9, 10) is None
    line = shortfall("a/model", 0.026, 3 * 2**30)
    assert line is not None
    assert line.startswith("a/model: model.quantization is nf4, but only 3% of the layers' weights are in 4 bits; 3.0 ")


def test_a_stage_keeps_the_share():
    kept, plain = SimpleNamespace(counts={}), SimpleNamespace(counts={})
    keep_share(SimpleNamespace(share_4bit=0.123456), kept)
    keep_share(SimpleNamespace(share_4bit=None), plain)
    assert (kept.counts, plain.counts) == ({"share_4bit": 0.1235}, {})


@pytest.mark.parametrize(("kind", "lines"), [("mixtral", 1), ("llama", 0)])
def test_the_plan_says_it(models, kind, lines):
    policy = shape_policy(recipe_of(models(kind), "nf4").model, None, 10)
    assert len(making._not_in_4_bits(recipe_of(models(kind), "nf4"), policy)) == lines
