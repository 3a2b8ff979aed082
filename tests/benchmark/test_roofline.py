import pytest

from pipeline.benchmark.roofline import device_rates, roofline, work
from pipeline.models.config import BlockConfig, LookupConfig, PrefixConfig, StackConfig, VanillaConfig
from pipeline.results.records import DeviceRates
from pipeline.study.schema import Setting

STACK = StackConfig(layers=2, width=64, heads=4, kv_heads=4, feed_forward=256)
VANILLA = VanillaConfig(1000, 64, STACK)
BLOCK = BlockConfig(1000, 64, 4, LookupConfig(16), STACK, PrefixConfig(STACK, 2))
FAST = DeviceRates(flops=1e30, copy_bandwidth=1e9, read_bandwidth=2e9)


def test_vanilla_work_is_the_sum_over_tokens() -> None:
    """Against a count by hand: 12 D^2 weights per layer, causal pairs, one row of logits per token.

    The last layer has 2 D^2 weights, of keys and values, for the prompt's tokens but the last, and no pairs.
    """
    prompt, new, batch = 10, 5, 3
    layer, head = 12 * 64 * 64, 64 * 1000
    tokens = prompt + new - 1
    pairs = tokens * (tokens + 1) / 2
    flops = 2 * 2 * layer * tokens + 2 * 4 * 64 * pairs + 2 * head * new
    flops -= 2 * 10 * 64 * 64 * (prompt - 1) + 4 * 64 * (prompt - 1) * prompt / 2
    found = work(VANILLA, Setting(prompt, new), batch, element=2)
    assert found.flops == pytest.approx(flops, rel=0.02)
    kv = sum(2 * 2 * 64 * 2 * position for position in range(prompt, tokens))
    assert found.bytes == pytest.approx(kv + new * 2 * (2 * layer + head) / batch, rel=0.02)


def test_what_binds_follows_the_devices_rates() -> None:
    setting = Setting(16, 32)
    memory = roofline(VANILLA, setting, 8, 2, FAST)
    assert memory.binding == "memory"
    assert memory.tokens_per_second == pytest.approx(32 / (work(VANILLA, setting, 8, 2).bytes / 2e9))
    assert memory.overlapped_tokens_per_second == pytest.approx(memory.tokens_per_second)
    compute = roofline(VANILLA, setting, 8, 2, DeviceRates(1e9, 1e30, 1e30))
    assert compute.binding == "compute"
    assert compute.compute_share == pytest.approx(1)
    even = DeviceRates(work(VANILLA, setting, 8, 2).flops, work(VANILLA, setting, 8, 2).bytes, 0)
    both = roofline(VANILLA, setting, 8, 2, even)
    assert both.overlapped_tokens_per_second == pytest.approx(2 * both.tokens_per_second)


def test_a_block_transformer_may_go_faster_where_memory_binds() -> None:
    setting = Setting(128, 128)
    rates = DeviceRates(1e30, 1e9, 1e9)
    ratio = roofline(BLOCK, setting, 10**6, 2, rates).tokens_per_second
    assert ratio > 2 * roofline(VANILLA, setting, 10**6, 2, rates).tokens_per_second


def test_the_device_is_measured() -> None:
    rates = device_rates("cpu", "fp32")
    assert 1e8 < rates.flops < 1e14
    assert 1e8 < rates.bandwidth < 1e13
    assert rates.bandwidth >= rates.copy_bandwidth
