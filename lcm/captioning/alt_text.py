"""Alternative text, as screen readers say it in place of a photo: one sentence, short, without "image of"."""

import regex

USUAL_CHARS = 125  # what screen readers say without a pause (WebAIM, "Alternative Text")
MAX_CHARS = 250  # what the IPTC Photo Metadata Standard 2021.1 recommends at most for "Alt Text (Accessibility)"
# What a screen reader would say twice, in English, French and German. Behind the German ones nouns stand in another
# case, which can be undone where the article is "ein".
_OPENING = regex.compile(
    r"(?:(?:this|here|das|dies) ist? |c'est |voici )?(?:(?:an?|the|une?|la|cette|eine?|das|dieses) |l')?(?:[\w-]+ )?"
    r"(?:image|picture|photo|photograph(?:ie)?|shot|cliché|bild|foto|fotografie|aufnahme)s? (?:en noir et blanc )?"
    r"(?:of |(?:that )?(?:shows|showing|depicts|depicting) |d'|de l'|de la |de |du |des |(?:qui )?montr(?:e|ant) |"
    r"(?:von|zeigt) (?=eine[mnr]?\b))(?=[\p{L}\p{N}])",
    regex.IGNORECASE,
)
_CASES = regex.compile(r"(?<=(?:von|zeigt) )(ein)e[mn]\b|(?<=(?:von|zeigt) )(eine)r\b", regex.IGNORECASE)
# Not behind a title or an initial: "St. Mary's", "J. Roe".
_SENTENCE_END = regex.compile(r"(?<=\p{STerm}[\p{Pf}\p{Pe}\"']*)(?<!\b(?:\p{L}{1,2}|Mrs|Prof)\.)\s+(?=[\p{Lu}\p{Lo}])")
_CLAUSE_END, _DANGLING = regex.compile(r"\s*[,;:–—]\s|\s-\s"), regex.compile(r"[\s,;:]+$")
_ENDED = regex.compile(r"(?:\p{STerm}|…)[\p{Pf}\p{Pe}\"']*$")


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop, where it lacks them."""
    text = _DANGLING.sub("", text[:1].upper() + text[1:])
    return text if not text or _ENDED.search(text) else f"{text}."


def alt_text(caption: str) -> str:
    """Return a caption's first sentence as alternative text; one of over USUAL_CHARS is cut where a clause ends."""
    text = _SENTENCE_END.split(" ".join(caption.split()), 1)[0]
    if opening := _OPENING.match(text):
        text = _CASES.sub(r"\1\2", text, 1)[opening.end() :]
    ends = [end.start() for end in _CLAUSE_END.finditer(text) if USUAL_CHARS // 3 < end.start() < USUAL_CHARS]
    if len(text) >= USUAL_CHARS and ends:
        text = text[: ends[-1]]
    if len(text) >= MAX_CHARS:
        text = _DANGLING.sub("", text[: MAX_CHARS - 1].rpartition(" ")[0] or text[: MAX_CHARS - 1]) + "…"
    return sentence(text)
