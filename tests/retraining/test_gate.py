"""The gate: what lets a new model pass and what refuses it, on captions made by hand."""

from lcm.retraining.gate import FEW, Part, judge

THINGS = ("dog", "boat", "horse", "car", "tree", "bird", "house", "child")
PLACES = ("on the grass", "at the sea", "in the snow", "under a bridge", "near a fence")
NONE = Part([], [], [])


def truth(count: int) -> list[str]:
    """Captions that differ from their neighbours."""
    return [f"a {THINGS[place % 8]} {PLACES[place % 5]} by day {place}" for place in range(count)]


def vague(count: int) -> list[str]:
    """What a model says that knows half of it."""
    return [f"a {THINGS[place % 8]} {PLACES[(place + 1) % 5]}" for place in range(count)]


def references(count: int) -> list[list[str]]:
    return [[caption, f"{caption} in the sun"] for caption in truth(count)]


def part(count: int, new: list[str], current: list[str]) -> Part:
    return Part(references(count), new, current)


SAME = part(60, vague(60), vague(60))
BETTER = part(30, truth(30), vague(30))


def failed(decision) -> list[str]:
    return [one.name for one in decision.checks if not one.passed]


# The base


def test_equal_models_pass():
    decision = judge(SAME, NONE)
    assert decision.publish
    assert [(one.name, one.found.value) for one in decision.checks] == [
        ("CIDEr on the base", 0),
        ("WER on the base", 0),
    ]


def test_i13_a_model_that_is_worse_on_the_base_is_refused():
    decision = judge(part(60, vague(60), truth(60)), BETTER)
    assert not decision.publish
    assert failed(decision) == ["CIDEr on the base", "WER on the base"]
    assert decision.numbers["base_cider_new"] < decision.numbers["base_cider_current"]


def test_a_worse_wer_alone_is_refused():
    """One word more in each caption: CIDEr's n-grams of things and places hardly change."""
    longer = [f"{caption} it is is it" for caption in vague(60)]
    decision = judge(part(60, longer, vague(60)), NONE)
    wer = decision.checks[1]
    assert (wer.name, wer.passed, wer.found.low > 0.01) == ("WER on the base", False, True)


def test_chance_counts_not_only_the_mean():
    """Better by the mean, and yet by how much is uncertain: the lower bound decides."""
    new = [*truth(6), *vague(60)[6:]]
    current = [*vague(6), *truth(11)[6:], *vague(60)[11:]]
    decision = judge(part(60, new, current), NONE)
    cider = decision.checks[0]
    assert cider.found.value > -0.01 > cider.found.low
    assert not cider.passed


# Contributions


def test_a_model_that_learned_the_contributions_passes():
    decision = judge(SAME, BETTER)
    assert decision.publish
    assert len(decision.checks) == 5
    assert decision.notes == ()
    assert decision.reason == "all checks passed"


def test_a_wer_that_rises_on_contributions_is_refused():
    longer = [f"{caption} in the sun in the sun in the sun" for caption in truth(30)]
    decision = judge(SAME, part(30, longer, vague(30)))
    assert failed(decision) == ["WER on contributions"]


def test_a_shuffled_batch_is_refused_though_all_scores_rise():
    """Captions of other images: the new model writes like them, whatever it sees, and scores better than before."""
    shuffled = references(40)
    current = ["nothing of the kind is there"] * 40
    new = ["a dog on the grass by day", "a boat at the sea by day"] * 20
    decision = judge(SAME, Part(shuffled, new, current))
    assert decision.numbers["contributed_cider_new"] > decision.numbers["contributed_cider_current"] + 0.1
    assert decision.numbers["contributed_wer_new"] < decision.numbers["contributed_wer_current"]
    assert failed(decision) == ["captions look at the image"]


def test_with_fewer_than_twenty_the_base_alone_decides_and_the_note_says_so():
    worse = part(FEW - 1, vague(FEW - 1), truth(FEW - 1))
    decision = judge(SAME, worse)
    assert decision.publish
    assert len(decision.checks) == 2
    assert decision.reason == "all checks passed. 19 held-out contributions are fewer than 20: the base alone decided"
    assert not any(name.startswith("contributed") for name in decision.numbers)
    assert not judge(SAME, part(FEW, vague(FEW), truth(FEW))).publish


def test_a_stand_in_base_is_never_published():
    decision = judge(SAME, BETTER, stand_in=True)
    assert failed(decision) == ["base data"]
    assert "LCM_DATASET_URL" in decision.reason
