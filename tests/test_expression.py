import copy
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer

from refdiff_lite.expression import cut_text, find_words, parse, token_positions

WORDS = "the a man's left-most dog's two red of on CUP (car:1.3) t-shirt, w/ in front".split()
WRITTEN = st.lists(st.sampled_from(WORDS), max_size=9)


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "...", "?!", "🐱", "_"])
def test_text_without_a_word(text):
    with pytest.raises(ValueError, match="has no word"):
        parse(text)


def test_length_limit():
    assert len(parse("x" * 1000).head) == 1000
    assert parse("cat" + " " * 2000).head == "cat"  # folded before it is measured
    with pytest.raises(ValueError, match="1001 characters"):
        parse("x" * 1001)


@pytest.mark.parametrize("head", ["man", "MAN", " man "])
def test_the_head_can_be_chosen_as_a_whole_word(head):
    found = parse("woman next to the man", head=head)
    assert (found.head, found.span) == ("man", (18, 21))


@pytest.mark.parametrize(
    ("text", "head", "start"),
    [
        ("cat left of the cat", "cat", 0),  # the rule's own
        ("cat left of the cat", "the cat", 16),  # named with the word before it
        ("on the cup, the cup", "cup", 16),  # the rule's own is the second
        ("dog near a red cup or a blue cup", "cup", 15),  # the rule chose neither: the first
        ("dog near a red cup or a blue cup", "blue  CUP", 29),
        ("the man's hat", "man", 4),
        ("the man's hat", "man’s", 4),
        ("t-shirt", "shirt", 0),
    ],
)
def test_a_named_word_that_stands_twice_or_in_a_longer_one(text, head, start):
    assert parse(text, head=head).span[0] == start


@pytest.mark.parametrize("head", ["wo", "cat", "next the", "", "'s"])
def test_a_head_that_is_no_word_of_the_text(head):
    with pytest.raises(ValueError, match="is not a word of"):
        parse("woman next to the man", head=head)


class Token(SimpleNamespace):
    """As spaCy's: its place and its dependency."""


@pytest.fixture
def no_spacy():
    from refdiff_lite import expression

    expression._spacy.cache_clear()
    yield
    expression._spacy.cache_clear()


def fake_spacy(models, answers):
    def load(name):
        assert name == "en_core_web_sm"
        return lambda text: [Token(idx=text.index(w), dep_=dep) for w, dep in answers[text]]

    return SimpleNamespace(util=SimpleNamespace(get_installed_models=lambda: models), load=load)


@pytest.mark.parametrize(
    ("text", "tokens", "head"),
    [
        ("left zebra", [("left", "ROOT"), ("zebra", "dobj")], "left"),
        ("girl who is sitting", [("girl", "ROOT"), ("who", "nsubj")], "girl"),
        ("the dog barks", [("the", "det"), ("dog", "nsubj"), ("barks", "ROOT")], "dog"),  # the subject stands first
        ("a dog is seen", [("a", "det"), ("dog", "nsubjpass"), ("seen", "ROOT")], "dog"),
        ("(car:1.3)", [("(", "punct"), ("car:1.3", "ROOT")], "car"),  # spaCy's word holds several of ours
        ("cat !", [("cat", "dep"), ("!", "ROOT")], "cat"),
    ],
)
def test_spacy_is_asked_by_name(monkeypatch, no_spacy, text, tokens, head):
    models = ["de_core_news_sm", "en_core_web_trf", "en_core_web_sm"]
    monkeypatch.setitem(sys.modules, "spacy", fake_spacy(models, {text: tokens}))
    found = parse(text, with_="spacy")
    assert found.head == head
    assert found.cues == parse(text).cues


def test_spacy_or_its_model_is_missing(monkeypatch, no_spacy):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ModuleNotFoundError, match="pip install spacy"):
        parse("left zebra", with_="spacy")
    monkeypatch.setitem(sys.modules, "spacy", fake_spacy(["de_core_news_sm"], {}))
    with pytest.raises(ModuleNotFoundError, match="spacy download en_core_web_sm"):
        parse("left zebra", with_="spacy")
    with pytest.raises(ValueError, match='choose "rule" or "spacy"'):
        parse("left zebra", with_="stanza")


def test_the_installed_spacy():
    spacy = pytest.importorskip("spacy")
    if not [m for m in spacy.util.get_installed_models() if m.startswith("en_core_web")]:
        pytest.skip("no English model")
    assert parse("girl who is sitting", with_="spacy").head == "girl"


def test_the_study_prints_the_hits_of_the_rule(capsys):
    from studies.heads import main

    main()
    assert f"rule  given head  {52}/52 = 100%" in capsys.readouterr().out


def pieces(tokenizer, text, positions):
    ids = tokenizer(text).input_ids
    return tokenizer.decode([ids[p] for p in positions]).strip()


@pytest.mark.parametrize("head", ["woman", "man", "next"])
def test_tokens_are_found_by_place_not_by_spelling(tokenizer, head):
    found = parse("woman next to the man", head=head)
    positions = token_positions(tokenizer, found.text, found.span)
    assert pieces(tokenizer, found.text, positions) == head
    assert positions == list(range(positions[0], positions[-1] + 1))


def test_the_second_of_two_equal_words(tokenizer):
    text = "cat left of the cat"
    assert token_positions(tokenizer, text, (0, 3)) == [1]
    last = token_positions(tokenizer, text, (16, 19))
    assert last == [len(tokenizer(text).input_ids) - 2]


@pytest.mark.parametrize("text", ["猫", "кошка", "the 🐱 cat", "naïve cat"])
def test_tokens_of_any_script(tokenizer, text):
    found = parse(text)
    assert pieces(tokenizer, text, token_positions(tokenizer, text, found.span)) == found.head


def test_a_head_behind_the_last_token(tokenizer):
    text = "small " * 40 + "cat"
    found = parse(text)
    with pytest.raises(ValueError, match="behind the 22 tokens"):
        token_positions(tokenizer, found.text, found.span)
    assert token_positions(tokenizer, found.text, (0, 5)) == [1]


class Slow(PreTrainedTokenizer):
    """The toy vocabulary without any offsets. ``greedy``: pieces depend on the words behind, so places are unknown."""

    def __init__(self, fast, greedy=False):
        self.fast, self.greedy = fast, greedy
        special = {f"{k}_token": getattr(fast, f"{k}_token") for k in ("bos", "eos", "unk", "pad")}
        super().__init__(**special, model_max_length=fast.model_max_length)

    vocab_size = property(lambda self: len(self.fast))

    def get_vocab(self):
        return self.fast.get_vocab()

    def _tokenize(self, text):
        return list(text[::-1]) if self.greedy else self.fast.tokenize(text)

    def _convert_token_to_id(self, token):
        return self.fast.convert_tokens_to_ids(token)

    def _convert_id_to_token(self, index):
        return self.fast.convert_ids_to_tokens(index)

    def build_inputs_with_special_tokens(self, ids, pair=None):
        return [self.bos_token_id, *ids, self.eos_token_id]

    def get_special_tokens_mask(self, ids, pair=None, already_has_special_tokens=False):
        return [1, *[0] * len(ids), 1]


TEXTS = ["woman next to the man", "cat left of the cat", "the 🐱 cat", "dog's left ear, blue", "small " * 30 + "cat"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_slow_tokenizer_gives_the_same_places(tokenizer, text):
    slow = Slow(tokenizer)
    assert not slow.is_fast
    assert slow(text).input_ids == tokenizer(text).input_ids
    for word in find_words(text)[:20]:
        assert token_positions(slow, text, word.span()) == token_positions(tokenizer, text, word.span()), word
    assert cut_text(slow, text) == cut_text(tokenizer, text)


def test_a_slow_tokenizer_whose_places_are_unknown_is_refused(tokenizer):
    with pytest.raises(ValueError, match="slow tokenizer"):
        token_positions(Slow(tokenizer, greedy=True), "woman next to the man", (0, 5))


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("the small cat", ""),
        ("small " * 21 + "cat", ""),  # 22 tokens: all are read
        ("small " * 22 + "cat", "cat"),
        ("small " * 20 + "cat left of the dog", "of the dog"),
        ("small " * 20 + "hippopotamus, blue", "hippopotamus, blue"),  # a word cut in two counts as cut
        ("small " * 23 + "🐱", "small 🐱"),
    ],
)
def test_text_that_the_encoder_does_not_read(tokenizer, text, cut):
    assert cut_text(tokenizer, text) == cut


def test_a_word_that_is_cut_in_two_keeps_the_pieces_that_are_read(tokenizer):
    text = "small " * 20 + "hippopotamus"
    whole = token_positions(tokenizer, "hippopotamus", (0, 12))
    found = token_positions(tokenizer, text, (120, 132))
    assert len(whole) > 2
    assert found == [21, 22]
    assert cut_text(tokenizer, text) == "hippopotamus"
    assert len(tokenizer(text, truncation=True, max_length=24).input_ids) - 1 == found[-1] + 1


def test_the_limit_is_the_model_s(tokenizer):
    longer = copy.deepcopy(tokenizer)
    longer.model_max_length = 77
    text = "small " * 75 + "cat"
    assert cut_text(longer, text) == "cat"
    assert cut_text(tokenizer, text) == "small " * 53 + "cat"
    with pytest.raises(ValueError, match="behind the 75 tokens"):
        token_positions(longer, text, (450, 453))
    assert token_positions(longer, text, (444, 449)) == [75]


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(WRITTEN.map(" ".join), st.text(max_size=80)).map(lambda t: " ".join(t.split())))
def test_what_is_read_and_what_is_cut_make_up_the_text(tokenizer, text):
    cut = cut_text(tokenizer, text)
    assert text.endswith(cut)
    read = len(tokenizer(text, truncation=True, max_length=tokenizer.model_max_length).input_ids)
    assert bool(cut) == (len(tokenizer(text, verbose=False).input_ids) > read)
    for word in find_words(text):
        if word.end() <= len(text) - len(cut):
            assert max(token_positions(tokenizer, text, word.span())) < read - 1
