import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.base.errors import UserError
from pipeline.data import PackedStream, packing

END = 0


def materialised(corpus, block_length, seed, stream):
    """The whole stream, written down document by document: token, is it real, and the document it belongs to."""
    tokens, valid, owner = [], [], []
    for index in range(len(corpus)):
        slots = [*corpus.document(index).tolist(), END]
        real = [True] * len(slots)
        if block_length is not None:
            left = int(stream.left_pads(index, index + 1)[0])
            assert 0 <= left < block_length
            right = -(left + len(slots)) % block_length
            slots = [0] * left + slots + [0] * right
            real = [False] * left + real + [False] * right
        tokens += slots
        valid += real
        owner += [index] * len(slots)
    return np.array(tokens), np.array(valid), np.array(owner)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    shards=st.integers(1, 4),
    context=st.integers(1, 24),
    block_length=st.sampled_from([None, 1, 2, 4, 8]),
    seed=st.integers(0, 3),
    group=st.integers(1, 5),
)
def test_windows_equal_the_materialised_stream(
    make_corpus, tmp_path_factory, lengths, shards, context, block_length, seed, group
):
    corpus = make_corpus(lengths, shards)
    corpus.folder = tmp_path_factory.mktemp("fresh") / "corpus"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "GROUP", group)
        patch.setattr(packing, "CHUNK", 2 * group)
        if sum(lengths) + len(lengths) < context:
            return
        stream = PackedStream(corpus, context, block_length, END, seed)
        tokens, valid, _ = materialised(corpus, block_length, seed, stream)
        assert stream.slots == len(tokens)
        assert len(stream) == len(tokens) // context
        for index in reversed(range(len(stream))):
            window, real = stream.window(index)
            here = slice(index * context, (index + 1) * context)
            assert window.tolist() == tokens[here].tolist()
            assert real.tolist() == valid[here].tolist()


def test_no_block_mixes_documents_and_every_end_of_text_is_real(make_corpus):
    corpus = make_corpus([5, 3, 4, 1, 0, 7, 9, 2, 2, 2, 11, 16])
    stream = PackedStream(corpus, 4, 4, END, seed=1)
    _, _, owner = materialised(corpus, 4, 1, stream)
    assert all(len(set(block)) == 1 for block in owner.reshape(-1, 4))
    real = np.concatenate([window[valid] for window, valid in map(stream.window, range(len(stream)))])
    assert np.count_nonzero(real == END) == len(corpus)
    assert real.tolist() == [token for i in range(len(corpus)) for token in [*corpus.document(i), END]]


def test_left_pads_are_a_function_of_seed_and_document_and_uniform(make_corpus):
    corpus = make_corpus([1] * 4000)
    pads = PackedStream(corpus, 8, 8, END, seed=3).left_pads(0, 4000)
    counts = np.bincount(pads, minlength=8)
    assert counts.min() > 400
    assert counts.max() < 600
    again = PackedStream(corpus, 16, 8, END, seed=3)
    assert np.array_equal(again.left_pads(1234, 1300), pads[1234:1300])
    assert not np.array_equal(PackedStream(corpus, 8, 8, END, seed=4).left_pads(0, 4000), pads)


def test_the_index_on_disk_serves_the_next_process_and_one_that_cannot_write(make_corpus, monkeypatch):
    corpus = make_corpus(list(range(1, 50)))
    first = PackedStream(corpus, 8, 4, END, seed=0)
    stored = list((corpus.folder.parent / "index").glob("*.npy"))
    assert len(stored) == 1
    monkeypatch.setattr(PackedStream, "_compute_index", lambda self: pytest.fail("computed again"))
    second = PackedStream(corpus, 8, 4, END, seed=0)
    assert [second.window(i)[0].tolist() for i in range(len(second))] == [
        first.window(i)[0].tolist() for i in range(len(first))
    ]
    monkeypatch.undo()
    stored[0].write_bytes(stored[0].read_bytes()[:-5])
    assert PackedStream(corpus, 8, 4, END, seed=0).slots == first.slots


def test_a_split_shorter_than_the_context_is_refused(make_corpus):
    with pytest.raises(UserError, match=r"pretrain.context_length: 512 is more than the 9 tokens"):
        PackedStream(make_corpus([3, 4]), 512, None, END, seed=0)


def test_windows_outside_the_stream_are_refused(make_corpus):
    stream = PackedStream(make_corpus([30]), 8, None, END, seed=0)
    with pytest.raises(IndexError):
        stream.window(len(stream))
    with pytest.raises(IndexError):
        stream.window(-1)
