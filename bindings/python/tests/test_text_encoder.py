"""Prompts to hidden states."""

import pickle

import numpy as np
import pytest

import altdiffusion
from conftest import GOLDEN


def test_states_are_an_array_without_a_copy():
    encoder = altdiffusion.TextEncoder()
    states = encoder.encode(["", "一只猫", "cat " * 200])
    assert states.shape == (3, encoder.length, encoder.width) == (3, 77, 128)
    assert states.truncated[:2] == [0, 0] and states.truncated[2] > 0
    array = np.asarray(states)
    assert array is states.numpy() and array.dtype == np.float32
    assert np.shares_memory(np.from_dlpack(states), array)
    assert np.shares_memory(states[1:].numpy(), array) and states[-1].shape == (1, 77, 128)
    assert states[-1].truncated == states.truncated[2:]
    np.testing.assert_array_equal(encoder.encode("一只猫").numpy(), array[1:2])
    skipped = encoder.encode(["一只猫"], clip_skip=1).numpy()
    assert not np.allclose(skipped, array[1:2])


def test_mistakes_are_errors():
    encoder = altdiffusion.TextEncoder()
    with pytest.raises(ValueError, match="at least one prompt"):
        encoder.encode([])
    with pytest.raises(ValueError, match="prompt 1: expected a text, found int"):
        encoder.encode(["a", 7])
    with pytest.raises(ValueError, match="layers of the text encoder"):
        encoder.encode(["a"], clip_skip=99)


def test_a_pickle_loads_the_model_again():
    encoder = altdiffusion.TextEncoder(GOLDEN / "alt_diffusion")
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.encode("a cat").numpy(), encoder.encode("a cat").numpy())
    assert repr(again) == repr(encoder)
