import pytest
import torch

from refdiff_lite.attention import AttentionMaps, min_max, propagate, record_attention, resize, word_map
from refdiff_lite.networks.compat import cross_attention_modules, self_attention_modules

LAYER = "down_blocks.1.attentions.0"


@pytest.fixture
def inputs(noise):
    return noise(1, 4, 8, 12), 101, noise(1, 24, 128)


def hooks(unet):
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in unet.modules())


@pytest.mark.parametrize("kind", ["cross", "self"])
@pytest.mark.parametrize("scores", ["softmax", "logits"])
def test_recording_changes_no_bit(unet, inputs, kind, scores):
    plain = unet(*inputs).sample
    with record_attention(unet, kind=kind, scores=scores) as record:
        recorded = unet(*inputs).sample
    assert torch.equal(recorded, plain)
    assert len(record.maps) == 7
    assert record.calls == 1
    assert all(m.dtype == torch.float32 for m in record.maps.values())


@pytest.mark.parametrize(("kind", "modules"), [("cross", cross_attention_modules), ("self", self_attention_modules)])
@pytest.mark.parametrize("scores", ["softmax", "logits"])
def test_maps_equal_a_computation_by_hand(unet, inputs, kind, modules, scores):
    seen, module = {}, modules(unet)[LAYER]
    handle = module.register_forward_pre_hook(
        lambda m, args, kwargs: seen.update(kwargs, hidden=args[0]), with_kwargs=True
    )
    with record_attention(unet, kind=kind, scores=scores) as record:
        unet(*inputs)
    handle.remove()
    keys = seen["hidden"] if kind == "self" else inputs[2]
    q, k = module.to_q(seen["hidden"])[0], module.to_k(keys)[0]
    d = q.shape[1] // 4
    heads = [q[:, i * d : i * d + d] @ k[:, i * d : i * d + d].T / d**0.5 for i in range(4)]
    if scores == "softmax":
        heads = [torch.softmax(h, dim=1) for h in heads]
    torch.testing.assert_close(record.maps[LAYER], torch.stack(heads).mean(0).reshape(1, 4, 6, -1))


@pytest.mark.parametrize(("kind", "keys"), [("cross", {24}), ("self", {8 * 12, 4 * 6})])
def test_rows_of_softmax_sum_to_one(unet, inputs, kind, keys):
    with record_attention(unet, kind=kind) as record:
        unet(*inputs)
    assert {m.shape[-1] for m in record.maps.values()} == keys
    for m in record.maps.values():
        assert (m >= 0).all()
        torch.testing.assert_close(m.sum(-1), torch.ones(m.shape[:-1]))


@pytest.mark.parametrize(("size", "half"), [((8, 12), (4, 6)), ((12, 8), (6, 4)), ((7, 9), (4, 5))])
def test_height_stands_before_width(unet, noise, size, half):
    with record_attention(unet) as record:
        unet(noise(1, 4, *size), 101, noise(1, 24, 128))
    grids = {name: tuple(m.shape[1:3]) for name, m in record.maps.items()}
    assert grids["down_blocks.0.attentions.0"] == grids["up_blocks.1.attentions.1"] == size
    assert grids[LAYER] == grids["mid_block.attentions.0"] == grids["up_blocks.0.attentions.0"] == half


def test_calls_are_averaged(unet, noise):
    a, b, text = noise(1, 4, 8, 8), noise(1, 4, 8, 8), noise(1, 24, 128)

    def maps(*latents):
        with record_attention(unet, LAYER) as record:
            for x in latents:
                unet(sample=x, timestep=101, encoder_hidden_states=text)
        assert record.calls == len(latents)
        return record.maps[LAYER]

    torch.testing.assert_close(maps(a, b), (maps(a) + maps(b)) / 2)
    assert not torch.allclose(maps(a), maps(b), atol=1e-6)


def test_batch_is_kept(unet, inputs):
    x, t, text = inputs
    with record_attention(unet, LAYER) as record:
        unet(torch.cat([x, -x]), t, text.repeat(2, 1, 1))
    with record_attention(unet, LAYER) as single:
        unet(-x, t, text)
    torch.testing.assert_close(record.maps[LAYER][1:], single.maps[LAYER], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("layers", "count"), [("", 7), ("down", 2), (r"up_blocks\.0", 2), ("mid|down", 3)])
def test_layers_are_chosen_by_regular_expression(unet, inputs, layers, count):
    with record_attention(unet, layers) as record:
        unet(*inputs)
    assert len(record.maps) == count


def test_hooks_are_removed(unet, inputs):
    before = hooks(unet)
    with record_attention(unet):
        assert hooks(unet) == before + 2 + 2 * 7
    assert hooks(unet) == before
    with pytest.raises(RuntimeError, match="to have 4 channels"), record_attention(unet):
        unet(inputs[0][:, :3], *inputs[1:])  # fails within the UNet
    assert hooks(unet) == before
    with record_attention(unet) as record:  # and one can record again
        unet(*inputs)
    assert record.calls == 1


def test_nested_recording(unet, inputs):
    before = hooks(unet)
    with record_attention(unet, "down") as outer, record_attention(unet, kind="self") as other:
        with pytest.raises(ValueError, match="being recorded already"), record_attention(unet, "up"):
            pass
        unet(*inputs)
    assert (len(outer.maps), len(other.maps)) == (2, 7)
    assert outer.maps[LAYER].shape[-1] == 24
    assert other.maps[LAYER].shape[-1] == 24  # 4 × 6 pixels
    assert not torch.allclose(outer.maps[LAYER], other.maps[LAYER], atol=1e-4)
    assert hooks(unet) == before


def test_no_layer_matches(unet):
    with (
        pytest.raises(ValueError, match=r"nothing.*matches none of: .*mid_block\.attentions\.0"),
        record_attention(unet, "nothing"),
    ):
        pass
    with record_attention(unet):
        pass


def test_a_network_without_attention():
    with (
        pytest.raises(ValueError, match="no attention of a Linear can be recorded, only that of UNet2DConditionModel"),
        record_attention(torch.nn.Linear(1, 1)),
    ):
        pass


def test_repr(unet, inputs):
    with record_attention(unet, LAYER) as record:
        unet(*inputs)
    assert repr(record) == f"AttentionMaps(cross, softmax, mean of 1 calls: {LAYER} (4, 6, 24))"


def test_heads_and_tokens_are_chosen(unet, inputs):
    with record_attention(unet, LAYER) as mean:
        unet(*inputs)
    with record_attention(unet, LAYER, heads="each") as heads:
        unet(*inputs)
    assert heads.maps[LAYER].shape == (1, 4, 4, 6, 24)
    torch.testing.assert_close(heads.maps[LAYER].mean(1), mean.maps[LAYER])
    with record_attention(unet, LAYER, tokens=[7, 3]) as some:
        unet(*inputs)
    assert torch.equal(some.maps[LAYER], mean.maps[LAYER][..., [7, 3]])
    assert torch.equal(word_map(some, [7], (8, 8)), word_map(mean, [7], (8, 8)))
    assert torch.equal(word_map(some, [5, 3], (8, 8)), word_map(mean, [3], (8, 8)))
    with pytest.raises(ValueError, match="token 4 was not recorded, only 7, 3"):
        word_map(some, [4], (8, 8))


def test_heads_one_after_another_give_the_same(unet, inputs, monkeypatch):
    with record_attention(unet, kind="self") as together:
        unet(*inputs)
    monkeypatch.setattr("refdiff_lite.networks.scores.AT_ONCE", 1)
    with record_attention(unet, kind="self") as apart:
        unet(*inputs)
    for name, m in apart.maps.items():
        torch.testing.assert_close(m, together.maps[name])


def test_a_byte_budget_refuses_before_it_is_spent(unet, inputs):
    before = hooks(unet)
    with record_attention(unet, kind="self") as record:
        unet(*inputs)
    need = sum(4 * m.numel() for m in record.maps.values())
    with record_attention(unet, kind="self", max_bytes=need):
        unet(*inputs)
        unet(*inputs)  # calls are summed: no more memory
    with (
        pytest.raises(ValueError, match=r"self-attention of up_blocks.*max_bytes.*coarser layers"),
        record_attention(unet, kind="self", max_bytes=need - 1),
    ):
        unet(*inputs)
    assert hooks(unet) == before
    with record_attention(unet, LAYER, tokens=[1], max_bytes=4 * 4 * 6):
        unet(*inputs)


def test_attention_slicing_is_no_hindrance(unet, inputs):
    with record_attention(unet) as plain:
        unet(*inputs)
    processors = unet.attn_processors
    unet.set_attention_slice(1)
    try:
        with record_attention(unet) as sliced:
            unet(*inputs)
    finally:
        unet.set_attn_processor(dict(processors))
    for name, m in sliced.maps.items():
        torch.testing.assert_close(m, plain.maps[name], atol=1e-5, rtol=1e-5)


def test_offloaded_weights_are_no_hindrance(unet, inputs):
    """Weights on the meta device, brought back for each layer as it runs, as sequential CPU offload does."""
    import copy

    from accelerate import cpu_offload

    from refdiff_lite.attention import run_for_attention

    with record_attention(unet, "up") as plain:
        unet(*inputs)
    offloaded = cpu_offload(copy.deepcopy(unet), execution_device=torch.device("cpu"))
    assert next(offloaded.parameters()).device.type == "meta"
    for run in (offloaded, lambda *x: run_for_attention(offloaded, *x)):
        with record_attention(offloaded, "up") as record:
            run(*inputs)
        assert all(torch.equal(m, plain.maps[name]) for name, m in record.maps.items())
        assert next(offloaded.parameters()).device.type == "meta"


@pytest.mark.slow  # importing the compiler takes seconds
@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_unet_runs_uncompiled_while_it_is_recorded(unet, inputs, in_place):
    import copy

    with record_attention(unet) as plain:
        unet(*inputs)
    net = copy.deepcopy(unet)
    if in_place:
        net.compile(backend="eager")
    else:
        net = torch.compile(net, backend="eager")
    with record_attention(net) as record:
        net(*inputs)
    assert record.maps.keys() == plain.maps.keys()
    assert all(torch.equal(m, plain.maps[name]) for name, m in record.maps.items())


def test_a_unet_that_leaves_its_modules_out_is_named(unet, inputs, monkeypatch):
    monkeypatch.setattr(type(unet), "forward", lambda self, *args, **kwargs: None)
    with pytest.raises(RuntimeError, match="compiled or exported"), record_attention(unet):
        unet(*inputs)


def cross(*layers):
    return AttentionMaps("cross", "softmax", {str(i): layer for i, layer in enumerate(layers)}, 1)


def test_min_max():
    x = torch.tensor([[[1.0, 3.0], [2.0, 5.0]], [[0.0, 0.0], [0.0, 10.0]]])
    expected = torch.tensor([[[0, 0.5], [0.25, 1]], [[0, 0], [0, 1.0]]])
    torch.testing.assert_close(min_max(x), expected)
    assert torch.equal(min_max(torch.full((2, 3), 7.0)), torch.zeros(2, 3))


def test_resize_is_bilinear_over_the_last_two():
    x = torch.arange(12.0).reshape(2, 2, 3)
    assert resize(x, (4, 5)).shape == (2, 4, 5)
    torch.testing.assert_close(resize(torch.tensor([[0.0, 1.0]]), (1, 4)), torch.tensor([[0, 0.25, 0.75, 1]]))


def test_word_map_reads_the_last_piece(noise):
    layer = noise(1, 4, 6, 24)
    c = word_map(cross(layer), [3, 5], (4, 6))
    torch.testing.assert_close(c, min_max(layer[0, ..., 5]))
    big = word_map(cross(layer), [5], (32, 48))
    assert big.shape == (32, 48)
    assert (big.min(), big.max()) == (0, pytest.approx(1, abs=1e-5))


def test_word_map_normalises_once_or_each_layer(noise):
    a, b = noise(1, 4, 6, 24), 100 * noise(1, 8, 12, 24)
    mean, each = (word_map(cross(a, b), [2], (8, 12), n) for n in ("mean", "each"))
    small, large = resize(a[0, ..., 2], (8, 12)), b[0, ..., 2]
    torch.testing.assert_close(mean, min_max(small + large))
    torch.testing.assert_close(each, min_max(resize(min_max(a[0, ..., 2]), (8, 12)) + min_max(large)))
    assert (mean - each).abs().max() > 0.1


@pytest.mark.parametrize("normalise", ["mean", "each"])
def test_a_flat_map_is_zero_not_nan(normalise):
    assert torch.equal(word_map(cross(torch.ones(1, 4, 6, 24)), [1], (8, 12), normalise), torch.zeros(8, 12))


def test_word_map_of_nothing(unet):
    with record_attention(unet) as record:
        pass
    with pytest.raises(ValueError, match="nothing was recorded"):
        word_map(record, [1], (8, 8))


def test_propagate_moves_the_map_along_attention():
    word = torch.zeros(2, 3)
    word[0, 0] = 1
    shift = torch.roll(torch.eye(6), 1, 0)  # every pixel looks at the one before it
    coarse = torch.full((1, 1, 1, 1), 5.0)
    attention = AttentionMaps("self", "softmax", {"a": coarse, "b": shift.reshape(1, 2, 3, 6)}, 1)
    for steps, place in ((0, (0, 0)), (1, (0, 1)), (2, (0, 2)), (3, (1, 0))):
        out = propagate(word, attention, steps)
        assert out.shape == (2, 3)
        assert out[place] == pytest.approx(1)
        assert out.sum() == pytest.approx(1)


def test_propagate_a_recorded_map(unet, inputs):
    with record_attention(unet, kind="self") as record:
        unet(*inputs)
    out = propagate(torch.rand(32, 48, generator=torch.Generator().manual_seed(0)), record)
    assert out.shape == (8, 12)
    assert (out.min(), out.max()) == (0, pytest.approx(1, abs=1e-3))
