"""The gated memory against its specification: gate, reset, symmetries, gradients, sizes (SeedPolicy, arXiv 2603.05117)."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from robolearn.nets.memory import GruMemory, SegaMemory
from robolearn.nets.sega import Sega
from robolearn.nets.transformer import Transformer

B, SLOTS, WIDTH, TO = 5, 6, 16, 3
NEVER = torch.zeros(B, dtype=torch.bool)


def make(layers: int = 2, **options) -> Sega:
    torch.manual_seed(0)
    net = Sega(WIDTH, SLOTS, layers, heads=4, **options)
    with torch.no_grad():
        net.position.normal_(std=0.3)
        net.initial.normal_(std=0.5)
    return net


def inputs(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(B, SLOTS, WIDTH, generator=g), torch.randn(B, TO, WIDTH, generator=g)


def with_logits(net: Sega, value: float) -> Sega:
    """Makes every logit of the state's cross-attention `value`, whatever the observations."""
    layers = net.layers
    for layer in layers:
        forward = layer.forward

        def replaced(state, obs, keys, forward=forward):
            state, obs, logits = forward(state, obs, keys)
            return state, obs, torch.full_like(logits, value)

        layer.forward = replaced
    return net


def test_a_gate_of_one_takes_the_new_state_and_a_gate_of_zero_keeps_the_old_one_exactly():
    state, obs = inputs()
    opened, _, gate = with_logits(make(), 1e9)(state, obs, NEVER)
    overwritten, _, _ = make(gate="none")(state, obs, NEVER)
    assert torch.equal(opened, overwritten) and torch.equal(gate, torch.ones_like(gate))
    kept, _, gate = with_logits(make(), -1e9)(state, obs, NEVER)
    assert torch.equal(kept, state) and torch.equal(gate, torch.zeros_like(gate))


def test_logits_of_zero_give_the_midpoint():
    state, obs = inputs()
    middle, _, gate = with_logits(make(), 0.0)(state, obs, NEVER)
    new, _, _ = make(gate="none")(state, obs, NEVER)
    torch.testing.assert_close(middle, (new + state) / 2)
    assert torch.equal(gate, torch.full_like(gate, 0.5))


@pytest.mark.parametrize("gate", ["attention", "mlp"])
def test_the_gate_is_one_number_a_slot_between_zero_and_one(gate):
    _, _, gates = make(gate=gate)(*inputs(), NEVER)
    assert gates.shape == (B, SLOTS, 1) and bool((gates > 0).all()) and bool((gates < 1).all())
    assert gates.std() > 1e-4, "slots differ"


def test_the_gate_is_the_sigmoid_of_the_mean_logit_before_the_softmax():
    net, (state, obs) = make(), inputs()
    seen = []
    for layer in net.layers:
        layer.register_forward_hook(lambda module, args, out: seen.append(out[2]))
    _, _, gate = net(state, obs, NEVER)
    logits = torch.stack(seen)  # (layers, B, heads, slots, To)
    expected = torch.sigmoid(logits.permute(1, 3, 0, 2, 4).flatten(2).mean(-1))
    torch.testing.assert_close(gate[..., 0], expected)
    after_softmax = torch.sigmoid(logits.softmax(-1).mean(dim=(0, 2, 4)))
    torch.testing.assert_close(after_softmax, torch.full_like(after_softmax, torch.sigmoid(torch.tensor(1 / TO)).item()))
    assert not torch.allclose(gate[..., 0], after_softmax, atol=1e-3)


def test_a_reset_row_forgets_its_state_and_its_neighbours_do_not():
    net, (state, obs) = make(), inputs()
    reset = torch.tensor([True, False, True, False, False])
    mixed = net(state, obs, reset)
    other = net(state + 7.0 * reset[:, None, None], obs, reset)
    begun, kept = net(state, obs, ~NEVER), net(state, obs, NEVER)
    for part in range(3):
        torch.testing.assert_close(mixed[part], other[part])
        torch.testing.assert_close(mixed[part][reset], begun[part][reset])
        torch.testing.assert_close(mixed[part][~reset], kept[part][~reset])
    assert torch.equal(mixed[2][reset], torch.ones_like(mixed[2][reset]))


def test_the_state_keeps_its_size_and_steps_equal_the_unrolled_chain():
    memory = SegaMemory(WIDTH, SLOTS, 2, 4, "attention", "before")
    features = torch.randn(B, 9, TO, WIDTH)
    reset = torch.zeros(B, 9, dtype=torch.bool)
    reset[:, 0], reset[2, 4] = True, True
    last, contexts = memory.unroll(memory.begin(B), features, reset)
    state = memory.begin(B)
    for k in range(9):
        state, context = memory.step(state, features[:, k], reset[:, k])
        torch.testing.assert_close(context, contexts[:, k])
    assert state.shape == (B, SLOTS, WIDTH)
    torch.testing.assert_close(state, last)


def test_a_step_costs_as_much_after_many_steps_as_after_one():
    memory = SegaMemory(WIDTH, SLOTS, 2, 4, "attention", "before")
    counts = []
    state = memory.begin(1)
    with torch.no_grad():
        for k in range(1000):
            state, _ = memory.step(state, torch.randn(1, TO, WIDTH), torch.tensor([k == 0]))
            if k in (1, 999):
                with FlopCounterMode(display=False) as counter:
                    memory.step(state, torch.randn(1, TO, WIDTH), torch.tensor([False]))
                counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0 and bool(torch.isfinite(state).all())


@pytest.mark.parametrize("keys", ["before", "after"])
def test_slots_and_observation_tokens_have_no_order_of_their_own(keys):
    net, (state, obs) = make(keys=keys), inputs()
    new, context, _ = net(state, obs, NEVER)
    slots, tokens = torch.randperm(SLOTS), torch.randperm(TO)
    with torch.no_grad():
        net.position.copy_(net.position[slots])
        net.initial.copy_(net.initial[slots])
    permuted, same, _ = net(state[:, slots], obs, NEVER)
    torch.testing.assert_close(permuted, new[:, slots])
    torch.testing.assert_close(same, context)
    unmoved, turned, _ = net(state[:, slots], obs[:, tokens], NEVER)
    torch.testing.assert_close(unmoved, permuted)
    torch.testing.assert_close(turned, same[:, tokens])


def test_keys_before_and_after_self_attention_differ_from_the_first_layer_on():
    state, obs = inputs()
    a, b = make(layers=1), make(layers=1, keys="after")
    assert not torch.allclose(a(state, obs, NEVER)[1], b(state, obs, NEVER)[1], atol=1e-4)


def without_gradient(net: torch.nn.Module, chain: int, resets: bool) -> set[str]:
    """Returns the names of parameters without gradient after a loss on the contexts of a chain that began elsewhere."""
    features = torch.randn(B, chain, TO, WIDTH)
    reset = torch.zeros(B, chain, dtype=torch.bool)
    reset[0, 0] = resets
    _, contexts = net.unroll(torch.randn(B, SLOTS, WIDTH), features, reset)
    contexts.square().mul(torch.randn(contexts.shape)).sum().backward()
    return {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}


@pytest.mark.parametrize("layers", [1, 3])
def test_with_the_state_cut_off_after_every_step_the_last_state_block_and_the_gate_learn_nothing(layers):
    torch.manual_seed(0)
    memory = SegaMemory(WIDTH, SLOTS, layers, 4, "attention", "before")
    dead = without_gradient(memory, chain=1, resets=False)
    dead_by_design = (f"sega.layers.{layers - 1}.state.", "sega.state_norm")
    last = {name for name, _ in memory.named_parameters() if name.startswith(dead_by_design)}
    # Keys do not see their own bias: attention is the same whatever is added to all keys; it is zero but for rounding.
    assert last | {"sega.initial"} <= dead
    others = {name for name in dead - last if "key_value.bias" not in name}
    assert others == {"sega.initial"}
    assert "sega.initial" not in without_gradient(memory, chain=1, resets=True), "S_0 learns where a chain begins"


def test_with_two_steps_and_more_everything_learns():
    torch.manual_seed(0)
    memory = SegaMemory(WIDTH, SLOTS, 3, 4, "attention", "before")
    assert without_gradient(memory, chain=2, resets=True) == set()


def test_parameter_counts_are_those_of_the_paper():
    def count(net: torch.nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    assert count(Sega(256)) == 12_679_168
    assert count(Sega(512)) == 50_524_160
    assert count(Transformer(10, 32, 16, 137)) == 9_006_858  # 9.01 M: PTP's square
    trunk, mlp = 11_176_512, 401_664  # ResNet-18 and 526 -> 512 -> 256, counted by tests/nets/test_vision.py
    head = count(Transformer(14, 9, 3, 256, cross_causal=False))
    assert head + trunk + mlp == 20_608_334
    assert head + trunk + mlp + count(Sega(256)) == 33_287_502


def test_a_gru_forgets_at_a_reset_and_its_context_carries_the_features():
    memory = GruMemory(4, 8, 2)
    features, state = torch.randn(B, TO, 4), torch.randn(B, 2, 8)
    reset = torch.tensor([True, False, False, False, False])
    _, context = memory.step(state, features, reset)
    _, begun = memory.step(memory.begin(B), features, ~NEVER)
    torch.testing.assert_close(context[0], begun[0])
    assert not torch.allclose(context[1], begun[1])
    assert context.shape == (B, TO, memory.context_dim) and torch.equal(context[..., :4], features)
