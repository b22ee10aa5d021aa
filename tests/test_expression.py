import pytest

from refdiff_lite.expression import CUES, parse, token_positions

TABLE = [
    # one noun
    ("zebra", "zebra", ()),
    ("the zebra", "zebra", ()),
    ("The Small Zebra", "Zebra", ()),
    ("a large yellow car", "car", ()),
    ("red apple", "apple", ()),
    ("the old wooden chair", "chair", ()),
    # cues
    ("the left zebra", "zebra", ("left",)),
    ("rightmost cup", "cup", ("right",)),
    ("the cup on the right", "cup", ("right",)),
    ("the topmost small cat", "cat", ("top",)),
    ("upper boat", "boat", ("top",)),
    ("lower boat", "boat", ("bottom",)),
    ("the dog at the bottom", "dog", ("bottom",)),
    ("upper left corner cup", "cup", ("top", "left")),
    ("cat on the left, far left", "cat", ("left",)),
    ("dog in the bottom right corner", "dog", ("bottom", "right")),
    ("LEFT cat", "cat", ("left",)),
    # words that only look like cues
    ("bright lamp", "lamp", ()),
    ("the desktop computer", "computer", ()),
    ("stop sign", "sign", ()),
    ("bottomless cup", "cup", ()),
    # relations place an object against another one: no cue
    ("dog left of the cat", "dog", ()),
    ("dog to the right of the cat", "dog", ()),
    ("a cup on top of the box", "cup", ()),
    ("dog left of the cat on the right", "dog", ("right",)),
    # the head stands before the first modifier
    ("woman next to the man", "woman", ()),
    ("man in the black shirt", "man", ()),
    ("the horse that is above the green boat", "horse", ()),
    ("glass of water", "glass", ()),
    ("dog sitting near a tree", "dog", ()),
    ("boy with a red hat", "boy", ()),
    ("the sitting dog", "dog", ()),
    ("dog's left ear", "ear", ("left",)),
    ("the t-shirt on the left", "t-shirt", ("left",)),
    # no noun that the rule knows
    ("left one", "one", ("left",)),
    ("the one in the middle", "one", ()),
    ("traffic light on the left", "light", ("left",)),
    ("बिल्ली", "बिल्ली", ()),
    ("red", "red", ()),
    ("the orange", "orange", ()),
    ("the small orange on the left", "orange", ("left",)),
    ("in", "in", ()),
    # other scripts, digits, signs
    ("猫", "猫", ()),
    ("кошка", "кошка", ()),
    ("🐱 cat 🐱", "cat", ()),
    ("player 23", "23", ()),
    ("  the\tleft \n zebra  ", "zebra", ("left",)),
]


@pytest.mark.parametrize(("text", "head", "cues"), TABLE)
def test_head_and_cues(text, head, cues):
    found = parse(text)
    assert (found.head, found.cues) == (head, cues)
    assert found.text[slice(*found.span)] == head
    assert found.text == " ".join(text.split())


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "...", "?!", "🐱", "_"])
def test_text_without_a_word(text):
    with pytest.raises(ValueError, match="has no word"):
        parse(text)


def test_length_limit():
    assert len(parse("x" * 1000).head) == 1000
    assert parse("cat" + " " * 2000).head == "cat"  # folded before it is measured
    with pytest.raises(ValueError, match="1001 characters"):
        parse("x" * 1001)


def test_cue_words():
    assert CUES["leftmost"] == "left"
    assert CUES["lower"] == "bottom"
    assert set(CUES.values()) == {"left", "right", "top", "bottom"}


@pytest.mark.parametrize("head", ["man", "MAN", " man "])
def test_the_head_can_be_chosen_as_a_whole_word(head):
    found = parse("woman next to the man", head=head)
    assert (found.head, found.span) == ("man", (18, 21))


@pytest.mark.parametrize("head", ["wo", "cat", "next to", ""])
def test_a_head_that_is_no_word_of_the_text(head):
    with pytest.raises(ValueError, match="is not a word of"):
        parse("woman next to the man", head=head)


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
