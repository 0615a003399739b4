"""Terms: a vocabulary of one's own for tags, from a CSV with a row for each term.

The column `term` is its name, `synonyms` are others, parted by "|", `parent` is a term above it, `rule` is "allow" or
"deny". A language's code, as `fr`, heads its names there, the first of which is shown. Names are looked for in captions
by the lemmas of their words: "dogs" is in "a dog".
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lcm.data.files import read_text
from lcm.data.text import candidates, clean_label, comparison_form, language_code, lemma, words
from lcm.errors import ConfigError, DataError

COLUMNS = ("term", "synonyms", "parent", "rule")
RULES = ALLOW, _ = ("allow", "deny")
Texts = Sequence[str] | Mapping[str, str]  # what is shown; with what is scored, where that is another text


class Terms:
    """A vocabulary; safe to call from several threads."""

    def __init__(self, path: str):
        """Read a CSV; raises ConfigError that names the line at fault."""
        self._terms: dict[str, dict[str, list[str]]] = {}  # case-folded term -> column -> what its cell names
        self._tables = {}  # language -> what _in returns
        try:
            text = read_text(Path(path).expanduser())
            rows = csv.DictReader(text.splitlines(keepends=True), restval="", strict=True)
            columns = rows.fieldnames or []
            if "term" not in columns or not all(name in COLUMNS or language_code(name) for name in columns):
                raise DataError(f"the columns are {columns}; choose from {', '.join(COLUMNS)}, fr and other codes")
            for row in filter(lambda row: any(row.values()), rows):  # a spreadsheet may end with rows of commas
                self._add(row)
        except OSError as error:
            raise ConfigError(f"the vocabulary {path} cannot be read ({error.strerror}); give a CSV file") from error
        except (DataError, csv.Error) as error:
            raise ConfigError(f"the vocabulary {path}, line {max(1, rows.reader.line_num)}: {error}") from None
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        self._listed = [key for key, term in self._terms.items() if term["rule"] == [ALLOW]]
        self._allowed = set(self._listed or (key for key, term in self._terms.items() if not term["rule"]))

    def _add(self, row: dict[str, str]) -> None:
        if None in row:
            raise DataError(f"{row[None][0]!r} is a cell too many; put a text with commas in quotes")
        term = {column: [clean_label(part) for part in cell.split("|") if part.strip()] for column, cell in row.items()}
        own, parent, rule = (term.setdefault(column, []) for column in ("term", "parent", "rule"))
        if len(own) != 1 or own[0].casefold() in self._terms:
            raise DataError(f"the term is {' | '.join(own)!r}; give each row one that no other row has")
        if len(parent) > 1 or not all(name.casefold() in self._terms for name in parent):
            raise DataError(f"the parent is {row['parent']!r}; name one term of a row above")
        if len(rule) > 1 or not all(name in RULES for name in rule):
            raise DataError(f"the rule is {row['rule']!r}; choose from {', '.join(RULES)}, or leave it empty")
        self._terms[own[0].casefold()] = term | {"term": own + term.get("synonyms", [])}

    def labels(self, language: str, unknown: Callable[[Sequence[str]], Iterable[str]]) -> dict[str, str] | None:
        """Return the terms of an allow list, as shown, each with the first of its names that is not `unknown`."""
        names, shown, _ = self._in(language)
        names = {shown[key]: names[key] + self._terms[key]["term"] for key in self._listed}
        unread = {*unknown([name for its in names.values() for name in its])} if names else ()
        return {key: next((name for name in its if name not in unread), its[0]) for key, its in names.items()} or None

    def find(self, captions: Iterable[str], language: str, shown_in: str) -> dict[str, str]:
        """Return what tags of captions are chosen from, terms and other content words, each with what was found."""
        (_, _, index), (_, shown, _) = self._in(language), self._in(shown_in)
        longest, found = max(map(len, index), default=1), {}
        for written in (words(caption, language) for caption in captions):
            forms, at = _forms(written, language), 0
            while at < len(forms):
                end = next((end for end in range(at + longest, at, -1) if forms[at:end] in index), at + 1)
                key = index.get(forms[at:end])
                if key in self._allowed:
                    found.setdefault(shown[key], " ".join(forms[at:end]))
                elif not key and not self._listed:
                    found |= {word: found.get(word, word) for word in candidates(written[at:end], language)}
                at = end
        return found

    def _in(self, language: str) -> tuple[dict[str, list[str]], dict[str, str], dict[tuple[str, ...], str]]:
        """Return the terms' names in a language, how they are shown, and which terms words are, by their forms."""
        if language not in self._tables:
            names = {key: term.get(language) or term["term"] for key, term in self._terms.items()}
            shown: dict[str, str] = {}
            for key, its in names.items():
                above = [shown[parent.casefold()] for parent in self._terms[key]["parent"]]
                shown[key] = " > ".join([*above, its[0]])
            every = [(name, key) for key, its in names.items() for name in its[1:]]
            every += [(its[0], key) for key, its in names.items()]  # which counts before another's synonym
            forms = {_forms(words(name, language), language): key for name, key in every}
            self._tables[language] = names, shown, forms
        return self._tables[language]


def _forms(written: Iterable[str], language: str) -> tuple[str, ...]:
    return tuple(comparison_form(lemma(word, language)) for word in written)
