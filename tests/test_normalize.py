"""Normalisation: equal to unicodedata and to Hugging Face, and every character knows where it came from."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weebill.errors import ConfigError
from weebill.normalize import check_normalizers, normalize, origins

BOTH = ("nfc", "lowercase")
MARKS = st.text(alphabet=st.sampled_from(list("aeEÅΣςİ \u0301\u0323\u0327\u1100\u1161\u11a8가각한")), max_size=12)


@pytest.mark.parametrize("names", [("nfc",), ("lowercase",), BOTH])
@given(text=MARKS | st.text(max_size=20))
@settings(max_examples=300, deadline=None)
def test_equals_hugging_face_and_knows_the_origin(names, text):
    from tokenizers import normalizers

    kinds = {"nfc": normalizers.NFC(), "lowercase": normalizers.Lowercase()}
    normal = normalize(text, names)
    if all(unicodedata.category(c) != "Cn" for c in text):  # the two libraries know different Unicode versions
        assert normal == normalizers.Sequence([kinds[n] for n in names]).normalize_str(text)
    spans = origins(text, names)
    assert len(spans) == len(normal)
    assert all(a < b for a, b in spans) and spans == sorted(spans)
    assert not text or (spans[0][0], spans[-1][1]) == (0, len(text))
    for span in set(spans):  # each span by itself gives the characters that say they come from it
        own = "".join(c for c, s in zip(normal, spans, strict=True) if s == span)
        assert normalize(text[slice(*span)], names) == own


def test_names_are_checked_and_ordered():
    assert check_normalizers(["lowercase", "nfc"]) == BOTH
    with pytest.raises(ConfigError, match="expected any of nfc, lowercase, got 'nfkc'"):
        check_normalizers(["nfkc"])
