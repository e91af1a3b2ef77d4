from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.order import Order, generator, rank_slice

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(lambda s: sum(s) > 0)


def make_order(shard_sizes: list[int], *, seed: int = 0, block_size: int = 6) -> Order:
    shards = np.repeat(np.arange(len(shard_sizes)), shard_sizes).astype(np.int32)
    return Order(shards=np.random.default_rng(0).permutation(shards), seed=seed, block_size=block_size)


@given(sizes, st.integers(0, 2**64 - 1), st.integers(0, 5), st.integers(1, 20), st.integers(1, 7))
def test_an_epoch_has_each_item_once_but_for_the_last_partial_batch(shard_sizes, seed, epoch, block_size, batch_size):
    order = make_order(shard_sizes, seed=seed, block_size=block_size)
    batches = list(order.batches(epoch, batch_size=batch_size))
    assert len(batches) == len(order.shards) // batch_size
    items = [item for batch in batches for item in batch]
    assert len(set(items)) == len(items)
    assert set(items) <= set(range(len(order.shards)))


@given(sizes, st.integers(1, 20), st.sampled_from([1, 2, 3, 4]), st.integers(0, 12))
def test_the_sequence_is_the_same_for_any_ranks_and_from_any_step(shard_sizes, block_size, world_size, start_step):
    order = make_order(shard_sizes, block_size=block_size)
    whole = [list(batch) for batch in order.batches(1, batch_size=12)]
    resumed = list(order.batches(1, batch_size=12, start_step=start_step))
    assert [list(batch) for batch in resumed] == whole[start_step:]
    for batch, expected in zip(resumed, whole[start_step:], strict=True):
        shares = [batch[rank_slice(12, rank=rank, world_size=world_size)] for rank in range(world_size)]
        assert [item for share in shares for item in share] == expected
        assert {len(share) for share in shares} == {12 // world_size}


def test_epochs_and_seeds_differ() -> None:
    shard_sizes = [20] * 10
    sequences = [
        tuple(np.concatenate(list(make_order(shard_sizes, seed=seed, block_size=40).batches(epoch, batch_size=1))))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len(set(sequences)) == 3


def test_a_block_holds_whole_shards_and_only_few() -> None:
    order = make_order([10] * 30, block_size=50)
    items = np.concatenate(list(order.batches(0, batch_size=10)))
    blocks = [set(order.shards[block]) for block in items.reshape(-1, 50)]
    assert {len(block) for block in blocks} == {5}
    assert set.union(*blocks) == set(range(30))
    assert len({frozenset(block) for block in blocks}) == 6


def test_a_small_set_is_shuffled_uniformly() -> None:
    first = [next(make_order([2, 2], seed=seed).batches(0, batch_size=1))[0] for seed in range(800)]
    # 800 draws of 4 items: 200 each, give or take five deviations of 12.2
    assert all(abs(count - 200) < 61 for count in np.bincount(first, minlength=4))


def test_a_generator_is_its_own_for_each_place_and_purpose() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    draws = {tuple(generator(s, epoch=e, position=p, purpose="clip").integers(0, 2**62, 3)) for s, e, p in keys}
    draws.add(tuple(generator(0, epoch=0, position=0, purpose="augment").integers(0, 2**62, 3)))
    assert len(draws) == 5
    again = [generator(3, epoch=2, position=1, purpose="clip").random() for _ in range(2)]
    assert again[0] == again[1]


def test_the_sequence_is_pinned() -> None:
    # A checkpoint of today must resume to the same samples tomorrow.
    batches = islice(make_order([5, 5], seed=7, block_size=5).batches(0, batch_size=5), 2)
    assert [batch.tolist() for batch in batches] == PINNED


PINNED = [[3, 5, 1, 6, 8], [4, 9, 2, 7, 0]]


@pytest.mark.parametrize(("batch_size", "rank", "world_size", "text"), [
    (10, 0, 4, "batch_size 10 must be a multiple of the 4 ranks"),
    (0, 0, 1, "batch_size 0 must be a multiple"),
    (8, 4, 4, "rank 4 must be at least 0 and below world_size 4"),
])  # fmt: skip
def test_ranks_that_cannot_share_are_refused(batch_size: int, rank: int, world_size: int, text: str) -> None:
    with pytest.raises(UserError, match=text):
        rank_slice(batch_size, rank=rank, world_size=world_size)


def test_bad_seeds_and_blocks_are_refused() -> None:
    shards = np.zeros(3, np.int32)
    with pytest.raises(UserError, match="seed -1 must be at least 0"):
        Order(shards=shards, seed=-1)
    with pytest.raises(UserError, match="block_size 0 must be at least 1"):
        Order(shards=shards, seed=0, block_size=0)
