"""The cards of a memory: colours where there are values, words that follow the figures, nothing from a network."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from robolearn.apps import _html, _memory_page
from robolearn.apps._memory_page import MemoryTrace
from robolearn.errors import ArrayMismatch
from robolearn.training.predictability import Comparison, Predictability


def trace(fact: int | None, seed: int, updates: int = 30) -> MemoryTrace:
    """An episode in which a memory learns its fact at update 10 and holds it."""
    rng = np.random.default_rng(seed)
    gates = rng.uniform(0.4, 0.6, (updates, 12))
    gates[0] = 1
    attention = rng.dirichlet(np.ones(16), updates)
    attention[np.arange(16)[None] < 15 - np.arange(updates)[:, None]] = np.nan
    states = rng.standard_normal((updates, 5))
    states[10:, 2] += 8 * (fact or 0)
    return MemoryTrace(5 * np.arange(updates), gates, attention, states, fact, seed)


def pictures(part: str) -> list[np.ndarray]:
    codes = re.findall(r"data:image/png;base64,([^\"]+)", part)
    return [np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_UNCHANGED)) for code in codes]


def comparison(expert: float, policy: float) -> Comparison:
    return Comparison(Predictability(expert, 0.2, (900, 100), 32), Predictability(policy, 0.2, (900, 100), 32))


def test_a_page_holds_every_card_and_is_well_formed() -> None:
    traces = [trace(i % 2, i) for i in range(20)]
    cards = _memory_page.cards(traces, comparison(0.01, 0.01), _memory_page.read_out(traces, seed=0))
    titles = [title for card in cards for title in re.findall("<h2>(.*?)</h2>", card)]
    assert titles[:2] == ["Action predictability", "What the memory holds"]
    assert titles[2:4] == ["Gates (seed 0 · fact 0)", "Gates (seed 1 · fact 1)"] and len(titles) == 6
    page = _html.page("Memory", "", [_html.grid(cards, least=400)])
    for svg in re.findall("<svg.*?</svg>", page, re.S):
        ET.fromstring(svg)
    assert "http" not in page and "nan" not in page


def test_gates_are_slots_by_updates_and_brighter_where_larger() -> None:
    gates = np.full((7, 3), 0.5)
    gates[4, 1] = 0.9
    image = pictures(_memory_page.gates_card(MemoryTrace(np.arange(7), gates)))[0]
    assert image.shape == (3, 7, 4) and (image[..., 3] == 255).all()
    brightness = image[..., :3].sum(axis=2)
    assert brightness.argmax() == np.ravel_multi_index((1, 4), (3, 7))


def test_the_first_update_and_outliers_do_not_flatten_the_colours() -> None:
    short = np.random.default_rng(0).uniform(0.4, 0.6, (10, 12))
    short[0] = 1  # one update in ten: no quantile alone would set it aside
    part = _memory_page.gates_card(MemoryTrace(np.arange(10), short))
    assert float(re.findall("≥ ([0-9.]+)", part)[0]) < 0.6
    plain = np.linspace(0.4, 0.6, 600).reshape(60, 10)
    plain[7, 7] = 1
    part = _memory_page.gates_card(MemoryTrace(np.arange(60), plain))
    assert "≥ 0.598" in part and "≤ 0.402" in part


def test_equal_values_have_equal_colours_in_all_episodes_of_a_page() -> None:
    low, high = np.linspace(0.1, 0.5, 40).reshape(10, 4), np.linspace(0.5, 0.9, 40).reshape(10, 4)
    traces = [MemoryTrace(np.arange(10), gates, gates, fact=fact) for fact, gates in enumerate((low, high))]
    first, second, third, fourth = _memory_page.cards(traces)
    assert (pictures(first)[0][-1, -1] == pictures(second)[0][0, 0]).all()  # 0.5 in both
    assert (pictures(third)[0][0, -1] == pictures(fourth)[0][-1, 0]).all()
    for a, b in ((first, second), (third, fourth)):
        assert not (pictures(a)[0] == pictures(b)[0]).all()


def test_attention_has_the_newest_on_top_and_what_is_not_there_blank() -> None:
    attention = np.full((5, 4), 0.1)
    attention[:, 3] = 0.7
    attention[0, :3] = np.nan
    part = _memory_page.attention_card(MemoryTrace(np.arange(5), attention=attention))
    image = pictures(part)[0]
    assert image.shape == (4, 5, 4)
    assert (image[1:, 0, 3] == 0).all() and (image[:, 1:, 3] == 255).all() and image[0, 0, 3] == 255
    assert (image[0, :, :3].sum(axis=1) > image[3, 1:, :3].sum(axis=1).max()).all()
    assert ">now<" in part and ">-3<" in part


@pytest.mark.parametrize(
    ("expert", "policy", "shown", "words"),
    [
        (0.04, 0.01, "4", "seems to copy its own past"),
        (0.01, 0.1, "0.1", "too little of its history"),
        (0.01, 0.011, "0.909", "about as predictable"),
        (0.01, 0.0, "∞", "seems to copy its own past"),
    ],
)
def test_the_words_follow_the_ratio(expert: float, policy: float, shown: str, words: str) -> None:
    part = _memory_page.predictability_card(comparison(expert, policy))
    assert f'<div class="big">{shown}</div>' in part and words in part
    assert f">{expert:.3g}<" in part and f">{policy:.3g}<" in part


def test_the_read_out_rises_when_the_fact_is_seen() -> None:
    found = _memory_page.read_out([trace(i % 2, i) for i in range(40)], seed=0)
    assert found is not None and found.n_episodes == 40
    by_tick = {row.tick: row.accuracy for row in found.by_tick}
    assert min(by_tick[t] for t in range(60, 150, 5)) > 0.9 > max(by_tick[t] for t in range(0, 50, 5))
    part = _memory_page.probe_card(found)
    assert part.count("<circle") == 30 and "chance 50 %" in part and "<polygon" in part


def test_without_two_facts_nothing_can_be_read() -> None:
    assert _memory_page.read_out([trace(1, i) for i in range(5)], seed=0) is None
    assert _memory_page.read_out([trace(None, i) for i in range(5)], seed=0) is None
    assert _memory_page.cards([MemoryTrace(np.arange(3))]) == []


def test_each_fact_is_shown_before_a_second_episode_of_any() -> None:
    traces = [trace(fact, seed) for seed, fact in enumerate((0, 0, 0, 1))]
    titles = re.findall(r"Gates \((.*?)\)", "".join(_memory_page.cards(traces)))
    assert titles == ["seed 0 · fact 0", "seed 3 · fact 1"]


def test_an_episode_of_one_update_and_one_of_nothing_but_blanks_are_drawn() -> None:
    one = MemoryTrace(np.array([0]), np.array([[0.5]]), np.array([[np.nan]]))
    assert "<image" in _memory_page.gates_card(one)
    assert "nothing measured" in _memory_page.attention_card(one)
    always = _memory_page.gates_card(MemoryTrace(np.arange(4), np.ones((4, 3))))  # a memory without a gate
    assert "gate 0<" in always and ">1<" in always


def test_a_trace_whose_arrays_do_not_fit_is_refused() -> None:
    with pytest.raises(ArrayMismatch, match=r"trace of seed 4: want gates \(3, n\), got \(2, 5\)"):
        MemoryTrace(np.arange(3), gates=np.zeros((2, 5)), seed=4)
