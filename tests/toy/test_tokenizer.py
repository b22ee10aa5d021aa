import json

import pytest

from refdiff_lite.toy.phrases import PLACES
from refdiff_lite.toy.scenes import TINTS, categories
from refdiff_lite.toy.tokenizer import CONTEXT, END, START, corpus, train_tokenizer


@pytest.fixture(scope="module")
def lines():
    return corpus(200)


def test_corpus_is_what_training_scenes_say(lines):
    assert lines == corpus(200)
    assert len(lines) > 1000
    assert {w for line in lines for w in line.replace(",", "").split()} >= {*categories(), *TINTS, "small", "large"}


def test_every_common_word_is_one_token(tokenizer):
    words = [*categories(), *TINTS, *PLACES, "small", "large", "the", "a", "on", "of", ","]
    assert [w for w in words if len(tokenizer(w).input_ids) != 3] == []


def test_special_tokens(tokenizer):
    ids = tokenizer("a cat").input_ids
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert (tokenizer.bos_token, tokenizer.eos_token) == (START, END)
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == max(tokenizer.get_vocab().values())
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    "text", ["a cat", "the small blue cat, left of a dog", "xylophone!", "猫 🐱", "naïve кошка", "{}#1"]
)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
    assert ids.count(tokenizer.eos_token_id) == 1  # nothing is unknown


def test_case_and_white_space_do_not_matter(tokenizer):
    assert tokenizer("The  small CAT").input_ids == tokenizer("the small cat").input_ids


def test_length_is_cut_and_padded(tokenizer):
    assert tokenizer.model_max_length == CONTEXT == 24
    for text in ("cat", "cat " * 100):
        ids = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert len(ids) == CONTEXT
        assert ids[-1] == tokenizer.eos_token_id


def test_training_is_repeatable(tokenizer, lines):
    assert train_tokenizer(lines).get_vocab() == tokenizer.get_vocab()


def test_vocabulary_size_limits_the_merges(lines):
    small = train_tokenizer(lines, vocabulary=100)
    assert len(small) < len(train_tokenizer(lines))
    assert len(small("strawberry").input_ids) > 3


def test_saved_and_loaded(tokenizer, clip_dir):
    from transformers import CLIPTokenizer

    loaded = CLIPTokenizer.from_pretrained(clip_dir)
    assert loaded("the small blue cat, 🐱").input_ids == tokenizer("the small blue cat, 🐱").input_ids
    assert loaded.model_max_length == CONTEXT
    assert json.loads((clip_dir / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]["vocab_size"] == len(
        tokenizer
    )
