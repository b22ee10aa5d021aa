"""Which keys are whose word: the tokens that each text encoder has read."""

import pytest
import tiny_pipelines
import torch
from tiny_pipelines import ORDER, PIPELINES, PROMPT, calls_of, paint, refused

from refdiff_lite.trace import trace

every = pytest.mark.parametrize("name", PIPELINES)


@pytest.mark.parametrize("padding", ["right", "left"])
@every
def test_the_keys_of_a_word_are_those_of_its_own_tokens(pipes, name, padding, monkeypatch):
    """Text encoders that give each token's number instead of its state: so the model's own call tells what stands where."""
    pipe, call = pipes(name)
    if padding == "left":  # as some language models' tokenizers have it
        if name not in ("flux2", "qwen", "z_image"):
            pytest.skip("its tokenizers pad on the right")
        monkeypatch.setattr(pipe.tokenizer, "padding_side", "left")
    handles = []

    def number(module, args, kwargs, output):
        ids = args[0] if args else kwargs["input_ids"]
        for key, value in output.items():
            if isinstance(value, tuple):
                output[key] = tuple(ids[..., None].expand(v.shape).to(v) if v.ndim == 3 else v for v in value)
            elif isinstance(value, torch.Tensor) and value.ndim == 3:
                output[key] = ids[..., None].expand(value.shape).to(value)
        return output

    for part in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        if getattr(pipe, part, None) is not None:
            handles.append(getattr(pipe, part).register_forward_hook(number, with_kwargs=True))
    try:
        calls = calls_of(pipe, call, PROMPT, **refused(name))
        with trace(pipe, negative=True) as record:
            paint(pipe, call, PROMPT, **refused(name))
    finally:
        [h.remove() for h in handles]
    order = ORDER[name]
    for negative in (False, True) if refused(name) else (False,):
        first = calls[int(negative) if order == "calls" else 0]
        rows = first.get("encoder_hidden_states", first.get("cap_feats"))
        numbers = rows[0 if order == "calls" else order.index("-" if negative else "+")][:, 0]
        for word in ("dog", "blurry") if negative else ("dog", "left", "cat", "left of a cat"):
            found = record.keys(word, negative=negative)
            assert found.keys() == ({"clip", "t5"} if name == "sd3" else {record.prompts[0][0].encoder})
            for encoder, keys in found.items():
                suffix = {"t5": {"sd3": "_3", "flux": "_2"}.get(name, "")}.get(encoder, "")
                tokenizer = getattr(pipe, f"tokenizer{suffix}")
                spelt = tokenizer.decode([int(numbers[k]) for k in keys])
                assert spelt.replace(" ", "") == word.replace(" ", "")


def test_a_textual_inversion_of_several_vectors_is_one_word():
    torch.manual_seed(0)
    pipe, call = tiny_pipelines.sd1()
    pipe.load_textual_inversion({"<toy>": torch.randn(3, 12)}, token="<toy>")
    with trace(pipe) as record:
        paint(pipe, call, "a <toy> and a cat")
    assert record.keys("<toy>") == {"clip": [2, 3, 4]}
    assert record.keys("and")["clip"][0] == 5
    plain = pipe.tokenizer("a <toy> <toy>_1 <toy>_2 and a cat").input_ids
    assert [pipe.tokenizer.decode(plain[k]).strip() for k in record.keys("cat")["clip"]][-1].endswith("t")


def test_embeddings_without_a_prompt_are_traced_but_have_no_words(pipes):
    pipe, call = pipes("sd1")
    embeds = torch.randn(2, 16, 12, generator=torch.Generator().manual_seed(0))
    with trace(pipe) as record:
        paint(pipe, call, None, prompt_embeds=embeds, negative_prompt_embeds=embeds * 0)
    assert len(next(iter(record.maps.values()))) == 2
    with pytest.raises(ValueError, match="no prompt is known"):
        record.keys("dog", 0)


def test_an_encoder_that_read_something_else_is_an_error(pipes, monkeypatch):
    pipe, call = pipes("qwen")
    monkeypatch.setattr(pipe, "_get_qwen_prompt_embeds", lambda prompt, *a, **k: type(pipe)._get_qwen_prompt_embeds(
        pipe, ["a lazy fox"], *a, **k))  # fmt: skip
    with (
        pytest.raises(ValueError, match="llm encoder of QwenImagePipeline read other tokens than those of 'a dog left"),
        trace(pipe),
    ):
        paint(pipe, call, PROMPT)
