"""Terms: a vocabulary of one's own for tags, from a CSV with a row for each term.

The column `term` is its name. `parent` is another term; `rule` is "allow" or "deny"; `synonyms` are other names, parted
by "|"; a language's code, as `fr`, heads its names there, the first of which is shown. Names are compared with captions
by the lemmas of their words, so "dogs" is found in "a dog".
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lcm.data.files import read_text
from lcm.data.text import MAX_LABELS, candidates, clean_label, comparison_form, language_code, lemma, words
from lcm.errors import ConfigError, DataError

COLUMNS = ("term", "parent", "synonyms", "rule")
RULES = ALLOW, DENY, _ = ("allow", "deny", "")
OF_PARENT = " > "  # between a term and what it is part of: "animals > dogs"


@dataclass(frozen=True)
class Term:
    """A row."""

    line: int
    names: Mapping[str, Sequence[str]]  # by language; of any other, under "", the term and its synonyms
    parent: str  # key of another term, empty for none
    rule: str  # one of RULES

    def names_in(self, language: str) -> Sequence[str]:
        return self.names.get(language) or self.names[""]


class Terms:
    """A vocabulary; safe to call from several threads."""

    def __init__(self, terms: Mapping[str, Term], digest: str):
        """Take the terms by their names, case-folded, and what tells this vocabulary from others."""
        self._terms, self.digest = terms, digest
        self._listed = {key: term for key, term in terms.items() if term.rule == ALLOW}
        self._indexes: dict[str, dict[tuple[str, ...], str]] = {}

    def labels(self, language: str, unknown: Callable[[Sequence[str]], Iterable[str]]) -> dict[str, str] | None:
        """Return the allowed terms, as they are shown, each with what is scored; None where all words are allowed.

        That is the first of its names, in `language` before the others, that is not among the `unknown` ones.
        """
        names = {key: [*term.names_in(language), *term.names[""]] for key, term in self._listed.items()}
        unread = {*unknown([name for its in names.values() for name in its])} if names else ()
        scored = {key: next((name for name in its if name not in unread), its[0]) for key, its in names.items()}
        return {self._shown(key, language): name for key, name in scored.items()} or None

    def find(self, captions: Iterable[str], language: str, shown_in: str) -> dict[str, str]:
        """Return the terms that captions name and their other content words, as shown, each with what was found."""
        index, found = self._index(language), {}
        longest = max(map(len, index))
        for written in (words(caption, language) for caption in captions):
            forms, at = self._forms(written, language), 0
            while at < len(written):
                end = next((end for end in range(at + longest, at, -1) if forms[at:end] in index), at + 1)
                key = index.get(forms[at:end])
                if key is None and not self._listed:
                    found |= {word: word for word in candidates([written[at]], language) if word not in found}
                elif key in (self._listed or self._terms) and self._terms[key].rule != DENY:
                    found.setdefault(self._shown(key, shown_in), " ".join(forms[at:end]))
                at = end
        return found

    def _shown(self, key: str, language: str) -> str:
        term = self._terms[key]
        above = self._shown(term.parent, language) + OF_PARENT if term.parent else ""
        return above + term.names_in(language)[0]

    @staticmethod
    def _forms(written: Iterable[str], language: str) -> tuple[str, ...]:
        return tuple(comparison_form(lemma(word, language)) for word in written)

    def _index(self, language: str) -> dict[tuple[str, ...], str]:
        """Return the terms' keys by the lemmas of their names; where two share one, a term's own comes first."""
        if language not in self._indexes:
            names = [
                (place, self._forms(words(name, language), language), key)
                for key, term in self._terms.items()
                for place, name in enumerate(term.names_in(language))
            ]
            self._indexes[language] = {forms: key for _, forms, key in sorted(names, key=lambda one: -one[0])}
        return self._indexes[language]


@cache
def load_terms(path: str) -> Terms | None:
    """Return the vocabulary in a CSV file, read once, None for no path; raises ConfigError with the line at fault."""
    if not path:
        return None
    terms: dict[str, Term] = {}
    at = 1
    try:
        text = read_text(Path(path).expanduser())
        rows = csv.reader(text.splitlines(keepends=True), strict=True)
        header = [cell.strip().lower() for cell in next(rows, [])]
        wrong = [cell for cell in header if cell not in COLUMNS and not language_code(cell)]
        if "term" not in header or wrong:
            raise DataError(
                f"has {f'a column {wrong[0]!r}' if wrong else 'no column term'}; part columns by commas, and choose from "
                f"{', '.join(COLUMNS)} and codes of languages, as fr"
            )
        for cells in rows:
            at = rows.line_num
            if any(map(str.strip, cells)):
                key, terms_own = _read_row(header, cells, at)
                if key in terms:
                    raise DataError(f"has the term of line {terms[key].line} again; choose another name")
                terms[key] = terms_own
        for term in terms.values():
            at, above = term.line, term
            for _ in terms:
                if above.parent and above.parent not in terms:
                    raise DataError(f"has the parent {above.parent!r}, which is no term of this file; give it a row")
                above = terms[above.parent] if above.parent else None
                if not above:
                    break
            if above:
                raise DataError("is its own parent, through others perhaps; leave one of their parents out")
    except OSError as error:
        raise ConfigError(f"the vocabulary {path} cannot be read ({error.strerror}); name a CSV file") from error
    except (DataError, csv.Error) as error:
        raise ConfigError(f"the vocabulary {path}: line {at} {error}") from None
    return Terms(terms, hashlib.sha256(text.encode()).hexdigest()[:8])
