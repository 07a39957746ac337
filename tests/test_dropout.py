"""Dropout: torch's is the oracle of its statistics; a thread's own generator decides its numbers."""

import threading

import pytest
import torch

from weebill.dropout import Dropout, drawing_from, dropout


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5])
def test_as_many_are_dropped_as_by_torch_and_the_rest_is_scaled_up(probability):
    torch.manual_seed(0)
    x = torch.ones(1000, 333)
    ours, theirs = dropout(x, probability, True), torch.nn.functional.dropout(x, probability)
    shares = [(some == 0).float().mean().item() for some in (ours, theirs)]
    assert shares[0] == pytest.approx(shares[1], abs=0.005)
    assert ours.mean().item() == pytest.approx(1, abs=0.01) and len(ours.unique()) == 2


def test_nothing_is_dropped_outside_training():
    module, x = Dropout(0.5), torch.ones(8, 8)
    assert (module(x) == 0).any() and torch.equal(module.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_a_thread_draws_from_its_own_generator():
    def draws(seed):
        with drawing_from(torch.Generator().manual_seed(seed)):
            together.wait(10)
            found[seed] = [dropout(torch.ones(64), 0.5, True) for _ in range(3)]

    found, state, together = {}, torch.get_rng_state(), threading.Barrier(3)
    threads = [threading.Thread(target=draws, args=(seed,)) for seed in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at_once, together = dict(found), threading.Barrier(1)
    assert torch.equal(torch.get_rng_state(), state)  # and leaves the default one alone
    for seed in (1, 2, 3):
        draws(seed)
        assert all(map(torch.equal, at_once[seed], found[seed]))
    assert not torch.equal(found[1][0], found[2][0])
    dropout(torch.ones(64), 0.5, True)
    assert not torch.equal(torch.get_rng_state(), state)
