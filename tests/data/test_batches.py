import numpy as np
import pytest

from pipeline.data import Batches, PackedStream
from pipeline.data.batches import permute


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17, 64, 65, 1000, 4097])
def test_permutation_reaches_every_index_once(size):
    indices = np.arange(size, dtype=np.uint64)
    orders = [permute(indices, size, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(size))
    if size > 100:
        assert len({order.tobytes() for order in orders}) == 4
        assert all(np.count_nonzero(order == indices) < 10 for order in orders)


def test_permutation_spreads_neighbours():
    """The correlation of an index with its place is that of a random order: about 1 / sqrt(size)."""
    size = 10_000
    order = permute(np.arange(size, dtype=np.uint64), size, seed=5, epoch=2).astype(float)
    assert abs(np.corrcoef(np.arange(size), order)[0, 1]) < 0.04
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04


def test_permutation_of_a_range_too_large_for_a_table():
    size = 10**15 + 7
    order = permute(np.arange(1000, dtype=np.uint64), size, seed=0, epoch=0)
    assert len(set(order.tolist())) == 1000
    assert order.max() < size
    assert order.max() > size // 2


def visited(batches, count):
    return [row.tobytes() for k in range(count) for row in batches.batch(k).tokens]


def test_each_epoch_visits_every_window_once_in_another_order(make_corpus):
    stream = PackedStream(make_corpus([50] * 40), 17, None, 0, seed=0)
    assert len(stream) == 120
    everything = sorted(stream.window(i)[0].tobytes() for i in range(120))
    rows = visited(Batches(stream, 16, seed=3), 15)
    assert sorted(rows[:120]) == sorted(rows[120:]) == everything
    assert rows[:120] != rows[120:]


def test_a_batch_depends_on_corpus_seed_and_number_alone(make_corpus):
    corpus = make_corpus([50] * 40, shards=3)
    stream = PackedStream(corpus, 16, 4, 0, seed=0)
    batches = Batches(stream, 6, seed=3)
    forwards = [batches.batch(k).tokens.tolist() for k in range(50)]
    other = Batches(PackedStream(corpus, 16, 4, 0, seed=0), 6, seed=3)
    assert [other.batch(k).tokens.tolist() for k in reversed(range(50))] == forwards[::-1]
    assert Batches(stream, 6, seed=4).batch(0).tokens.tolist() != forwards[0]


def test_batch_size_does_not_change_the_order(make_corpus):
    stream = PackedStream(make_corpus([50] * 40), 16, 2, 0, seed=0)
    assert visited(Batches(stream, 4, seed=1), 100) == visited(Batches(stream, 8, seed=1), 50)


def test_ranks_share_a_batch_between_them(make_corpus):
    stream = PackedStream(make_corpus([50] * 40), 16, 4, 0, seed=0)
    batches = Batches(stream, 8, seed=1)
    whole = batches.batch(31)
    parts = [batches.batch(31, rank, 4) for rank in range(4)]
    assert np.array_equal(np.concatenate([part.tokens for part in parts]), whole.tokens)
    assert np.array_equal(np.concatenate([part.valid for part in parts]), whole.valid)
    assert (whole.tokens.dtype, whole.valid.dtype, whole.tokens.shape) == (np.int64, np.bool_, (8, 16))
    with pytest.raises(ValueError, match="not a multiple of 3 ranks"):
        batches.batch(0, 0, 3)
