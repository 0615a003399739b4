"""The frozen answers of tests/frozen, checked so that another processor may differ a little; the command is exact."""

import pytest

from tests.frozen import frozen

CAPTIONS_EQUAL, SCORE_MAY_DIFFER = 0.98, 0.01


@pytest.mark.parametrize(("name", "photos"), [("scenes", frozen.scenes), ("flickr8k", frozen.flickr8k_photos)])
def test_the_shipped_bundle_answers_as_frozen(name, photos):
    expected, photos = frozen.golden(name), photos()
    if not photos:
        pytest.skip("the photos are missing; set LCM_FLICKR8K to the folder of Flickr8k")
    assert list(expected) == list(photos)
    found = frozen.answers(photos)
    same = [name for name in expected if found[name][:2] == [expected[name][0], tuple(expected[name][1])]]
    assert len(same) >= CAPTIONS_EQUAL * len(expected)
    for name in same:
        (_, _, tags, confidence), (_, _, frozen_tags, frozen_confidence) = found[name], expected[name]
        assert tags == pytest.approx(frozen_tags, abs=SCORE_MAY_DIFFER)
        assert confidence == pytest.approx(frozen_confidence, abs=SCORE_MAY_DIFFER)
