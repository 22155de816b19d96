"""Watching attention changes nothing; the maps are attention; the metrics are what docs/attention.md says, counted by hand."""

import math

import numpy as np
import pytest
import torch
from exams import squares
from test_card import SPACE, FakeMind, a_life, card_of
from test_latent import SMALL, small

from motorbabble.analysis.attention import attention_numbers, attention_section, look, metrics, uniform
from motorbabble.analysis.card import make_card
from motorbabble.analysis.scores import Trial
from motorbabble.models.attention import Attend, Block, EncoderLayerWithAttn, Groups, Rotary, grid_places, record_attention
from motorbabble.models.predictor import PredictorConfig, TokenIndex, TransformerActionConditionedPredictor
from motorbabble.world_models.latent import AutoencoderLatentPredictorWorldModelConfig, LatentWorldModel


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def predictor() -> TransformerActionConditionedPredictor:
    made = TransformerActionConditionedPredictor(2, 3, 32, 2, PredictorConfig(depth=3, heads=2)).eval()
    torch.nn.init.normal_(made.head.weight, std=0.1)
    return made


def test_outputs_are_the_same_to_the_bit_while_recorded():
    model, latents, actions = predictor(), torch.randn(2, 3, 6, 32), torch.randn(2, 3, 2)
    plain = model(latents, actions)
    with record_attention(model) as recorded:
        watched = model(latents, actions)
    again = model(latents, actions)
    for other in (watched, again):
        assert torch.equal(plain[0], other[0]) and torch.equal(plain[1], other[1])
    assert list(recorded) == [f"blocks.{i}.attn.attend" for i in range(3)]
    assert [len(maps) for maps in recorded.values()] == [1, 1, 1], "after the context nothing is recorded"
    for (maps,) in recorded.values():
        assert maps.shape == (2, 2, 21, 21) and not maps.requires_grad
        torch.testing.assert_close(maps.sum(-1), torch.ones(2, 2, 21))


GROUPS = [None, *(Groups.in_time(moments, 6 // moments) for moments in (1, 2, 6)), Groups((2, 1, 3), ((0,), (1,), (0, 2)))]


@pytest.mark.parametrize("groups", GROUPS)
def test_the_map_times_the_values_is_what_the_block_computes(groups):
    """The weights recorded are those of the fused call, and not some others that also sum to 1."""
    block, x, rotary = EncoderLayerWithAttn(32, 2), torch.randn(2, 6, 32), Rotary(16)(grid_places(2, 3))
    seen = {}
    block.attn.attend.register_forward_hook(lambda attend, inputs, output: seen.update(values=inputs[2], output=output))
    past = torch.randn(1, 2, 5, 16), torch.randn(1, 2, 5, 16)
    with record_attention(block) as recorded:
        block(x, rotary, groups, past)
    torch.testing.assert_close(recorded["attn.attend"][0] @ seen["values"], seen["output"])
    assert EncoderLayerWithAttn is Block


def test_a_group_sees_whom_it_says_and_whatever_came_before():
    groups = Groups((2, 1, 3), ((0,), (1,), (0, 2)))
    rows = [[1, 1, 1, 1, 0, 0, 0, 0]] * 2 + [[1, 1, 0, 0, 1, 0, 0, 0]] + [[1, 1, 1, 1, 0, 1, 1, 1]] * 3
    assert groups.mask(8, torch.device("cpu")).tolist() == [[bool(seen) for seen in row] for row in rows]
    keys = torch.arange(8.0).view(1, 1, 8, 1)
    assert [seen.flatten().tolist() for seen in groups.seen(keys)] == [[0, 1, 2, 3], [0, 1, 4], [0, 1, 2, 3, 5, 6, 7]]
    assert Groups.in_time(2, 4).seen(keys)[1] is keys, "who sees all gets no copy"


def test_later_blocks_get_exactly_nothing():
    model = predictor()
    with record_attention(model) as recorded:
        model(torch.randn(1, 3, 6, 32), torch.randn(1, 3, 2))
    for (maps,) in recorded.values():
        for moment in range(3):
            rows = maps[..., 7 * moment : 7 * moment + 7, :]
            assert (rows[..., 7 * moment + 7 :] == 0).all() and (rows[..., : 7 * moment + 7] > 0).all()


def test_nested_recording_and_errors_leave_the_model_as_it_was():
    model = predictor()
    given = torch.randn(1, 1, 6, 32), torch.randn(1, 1, 2)
    with record_attention(model) as outer:
        with record_attention(model.blocks[1]) as inner:
            model(*given)
        model(*given)
    assert [len(maps) for maps in outer.values()] == [2, 2, 2] and [len(maps) for maps in inner.values()] == [1]
    with pytest.raises(RuntimeError), record_attention(model):
        raise RuntimeError
    assert not any(part._forward_hooks for part in model.modules() if isinstance(part, Attend))
    with record_attention(torch.nn.Linear(2, 2)) as nothing:
        assert nothing == {}


def test_a_predictor_returns_its_attention_when_asked():
    model, latents, actions = predictor(), torch.randn(2, 3, 6, 32), torch.randn(2, 3, 2)
    plain = model(latents, actions)
    assert len(plain) == 3
    after, states, present, info = model(latents, actions, return_attn=True)
    assert torch.equal(after, plain[0]) and torch.equal(states, plain[1]) and len(present) == 3
    assert len(info.layers) == 3 and info.layers[0].shape == (2, 2, 21, 21) and info.index == TokenIndex(2, 3, 3)
    # With a cache only the newest block asks, over all that is cached, and finds the same.
    _, _, past = model(latents[:, :2], actions[:, :2])
    *_, cached = model(latents[:, 2:], actions[:, 2:], past, 2, return_attn=True)
    assert cached.layers[0].shape == (2, 2, 7, 21) and cached.index == info.index
    for whole, part in zip(info.layers, cached.layers, strict=True):
        torch.testing.assert_close(info.index.asking(whole), info.index.asking(part))


def test_what_is_clipped_is_not_counted():
    model = TransformerActionConditionedPredictor(2, 3, 32, 2, PredictorConfig(depth=1, heads=2, max_sequence_length=15))
    *_, info = model(torch.randn(1, 4, 6, 32), torch.randn(1, 4, 2), return_attn=True)
    assert info.index.moments == 2 and info.layers[0].shape == (1, 2, 14, 14)


def test_which_token_is_which():
    index = TokenIndex(1, 2, 3)  # F F a F F a F F a
    assert index.keys == 9 and index.actions.tolist() == [2, 5, 8] and index.frames.tolist() == [[0, 1], [3, 4], [6, 7]]
    rows = torch.arange(9.0)[:, None].expand(9, 9)
    assert index.asking(rows)[:, 0].tolist() == [6, 7], "the newest frame's tokens ask"
    assert index.newest_first().tolist() == [[8, 6, 7, 5, 3, 4, 2, 0, 1], [8, 7, 6, 5, 4, 3, 2, 1, 0]]
    near = TokenIndex(4, 5, 2).newest_first()
    assert all(sorted(row) == list(range(42)) for row in near.tolist())
    assert near[7, :6].tolist() == [41, 21 + 7, 21 + 2, 21 + 6, 21 + 8, 21 + 12], "row 1, column 2: itself, then its four neighbours"


def test_the_metrics_by_hand():
    index = TokenIndex(1, 2, 2)  # F F a F F a
    rows = torch.tensor([[[0.1, 0.0, 0.2, 0.3, 0.1, 0.3], [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]]])
    told = metrics(rows, index)
    assert told["apa"] == pytest.approx(0.4) and told["alf"] == pytest.approx((0.4 + 0.5) / 2)
    assert told["ttar"] == pytest.approx((0.5 + 0.5) / (0.5 + 0.5))
    assert told["ri16"] == pytest.approx(1), "there are fewer than 16 keys"
    first = -sum(p * math.log(p) for p in (0.1, 0.2, 0.3, 0.1, 0.3))
    assert told["entropy"] == pytest.approx((first + math.log(2)) / 2) and told["entropy_share"] == pytest.approx(told["entropy"] / math.log(6))


def test_the_newest_sixteen():
    index = TokenIndex(4, 5, 2)
    here = torch.zeros(20, 42, dtype=torch.float64)
    here[:, 41] = 1.0
    assert metrics(here, index)["ri16"] == 1 and metrics(here, index)["apa"] == 1 and metrics(here, index)["ttar"] is None
    past = torch.zeros(20, 42, dtype=torch.float64)
    past[:, 20] = 1.0
    assert metrics(past, index)["ri16"] == 0 and metrics(past, index)["apa"] == 0 and metrics(past, index)["alf"] == 0
    far = torch.zeros(20, 42, dtype=torch.float64)
    far[0, 21 + 19], far[1:, 41] = 1.0, 1.0  # one corner looks at the opposite one: among its own moment's, the last
    assert metrics(far, index)["ri16"] == pytest.approx(19 / 20)


@pytest.mark.parametrize("index", [TokenIndex(4, 5, 2), TokenIndex(1, 2, 3), TokenIndex(7, 7, 1)])
def test_attention_that_looks_everywhere_alike_is_the_baseline(index):
    keys, patches = index.keys, index.frame_tokens
    assert uniform(index) == {
        "apa": pytest.approx(1 / keys),
        "alf": pytest.approx(patches / keys),
        "ttar": pytest.approx(1 / patches),
        "ri16": pytest.approx(min(16, keys) / keys),
        "entropy": pytest.approx(math.log(keys)),
        "entropy_share": pytest.approx(1),
    }


def trials(count: int = 5) -> list[Trial]:
    made = []
    for seed in range(count):
        window = squares(3, seed=seed)
        made.append(Trial(window.last(2) if seed else window.last(1), window.actions[-1], np.roll(window.images[-1], 8, 1), None, True))
    return made


def test_the_cards_block_has_every_layer_and_head_beside_the_baseline():
    numbers = attention_numbers(small(prediction_history_size=2).eval(), trials())
    assert numbers["trials"] == 4, "the one at an episode's beginning has a shorter window"
    assert numbers["moments"] == 2 and numbers["keys"] == 34 and numbers["uniform"]["apa"] == pytest.approx(1 / 34)
    assert len(numbers["layers"]) == 2 and all(len(layer["heads"]) == 2 for layer in numbers["layers"])
    last = numbers["layers"][-1]
    assert numbers["last_layer"] == {key: last[key] for key in numbers["uniform"]}
    assert last["apa"] == pytest.approx(sum(head["apa"] for head in last["heads"]) / 2)
    assert 0 < last["entropy"] <= math.log(34) and set(last["heads"][0]) == set(numbers["uniform"])
    assert "RI@16" in attention_section({"attention": numbers}, [])


def test_a_look_shows_what_will_change():
    trial = trials(2)[1]
    seen = look(small(prediction_history_size=2).eval(), trial)
    assert seen.changed.shape == (4, 4) and 1 <= seen.changed.sum() <= 8 and len(seen.heads) == 2
    assert np.array_equal(seen.frames, trial.window.images)
    for heat, actions, earlier in zip(seen.heads, seen.actions, seen.earlier, strict=True):
        assert heat.shape == (2, 4, 4) and heat[0].sum() == pytest.approx(earlier, abs=1e-5)
        assert heat.sum() + actions == pytest.approx(1, abs=1e-5)
    page = attention_section({"attention": attention_numbers(small(prediction_history_size=2).eval(), trials())}, [seen])
    assert page.count("<img ") == 3 and "head 2" in page
    still = Trial(trial.window, trial.action, trial.window.images[-1], None, False)
    assert look(small().eval(), still) is None


def test_a_card_shows_where_a_network_looks(tmp_path):
    config = AutoencoderLatentPredictorWorldModelConfig(*SMALL, prediction_history_size=2)
    card = make_card(LatentWorldModel((64, 64), 1, config), SPACE, a_life(), a_life(seed=1, steps=12), name="fresh")
    told = card.numbers["attention"]
    assert told["keys"] == 2 * 65 and told["trials"] == 10 and len(card.looks) == 2
    text = card.save(tmp_path).read_text()
    assert "Where it looks" in text and "each patch of the last frame looks at 130 tokens" in text
    assert "Where it looks" not in card_of(FakeMind()).to_html()


def test_a_model_without_attention_has_no_such_numbers():
    class Blind(torch.nn.Module):
        pass

    assert attention_numbers(Blind(), trials()) is None and look(Blind(), trials()[0]) is None
    assert attention_section({"attention": None}, []) == ""
