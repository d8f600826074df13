"""Writes native/text/unicode_tables.inc: what each tokenizer that we match believes of Unicode.

Two sets of facts, told apart by a mask on every row:
  1 (huggingface)  the tables inside Hugging Face's tokenizers, which are of several Unicode versions (categories
                   about 8, decompositions and lower-casing newer). They are observed: the library itself is asked
                   about every code point, so the result is what it does and not what it should do.
  2 (google)       Python's unicodedata 14, which the original TensorFlow tokenizer uses.

Needs Python 3.11 (Unicode 14) and: pip install tokenizers==0.23.2
Run in the project's root: python3 scripts/generate-unicode-tables.py
"""

import pathlib
import unicodedata

import tokenizers
from tokenizers import normalizers, pre_tokenizers

assert unicodedata.unidata_version == "14.0.0", "needs a Python with Unicode 14 (3.11)"
assert tokenizers.__version__ == "0.23.2", "needs tokenizers 0.23.2"

REMOVED, SPACE, WHITESPACE, CJK, MARK, PUNCTUATION, WORD, CASED, IGNORABLE = (1 << bit for bit in range(9))
HUGGINGFACE, GOOGLE = 1, 2
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed by arithmetic


def bert_normalizer(**switches):
    names = ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")
    return normalizers.BertNormalizer(**{name: switches.get(name, False) for name in names})


def observe_huggingface():
    clean, spacing = bert_normalizer(clean_text=True), bert_normalizer(handle_chinese_chars=True)
    strip, lower = bert_normalizer(strip_accents=True), bert_normalizer(lowercase=True)
    decompose, split, words = normalizers.NFD(), pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Whitespace()
    flags, decompositions, lowered, combining = {}, {}, {}, {}
    for c in CODE_POINTS:
        s, flag = chr(c), 0
        cleaned = clean.normalize_str(f"a{s}a")
        assert cleaned in ("aa", "a a", f"a{s}a")
        flag |= {"aa": REMOVED, "a a": SPACE}.get(cleaned, 0)
        flag |= CJK if spacing.normalize_str(s) != s else 0
        decomposed = decompose.normalize_str(s)
        if decomposed != s:
            decompositions[c] = decomposed
        elif strip.normalize_str(s) == "":
            flag |= MARK
        flag |= {1: 0, 2: WHITESPACE, 3: PUNCTUATION}[len(split.pre_tokenize_str(f"a{s}a"))]
        flag |= WORD if words.pre_tokenize_str(f"a{s}")[0][0] == f"a{s}" else 0
        if lower.normalize_str(s) != s:
            lowered[c] = lower.normalize_str(s)
        expected_class = unicodedata.combining(s)
        probe = f"a{s}\u0334" if expected_class > 1 else f"a\u0301{s}"
        if expected_class and decomposed == s and decompose.normalize_str(probe) != probe:
            combining[c] = expected_class
        flags[c] = flag
    return flags, decompositions, lowered, combining


def observe_google():
    def spaced(c):
        return (0x4E00 <= c <= 0x9FFF or 0x3400 <= c <= 0x4DBF or 0x20000 <= c <= 0x2A6DF or 0x2A700 <= c <= 0x2B73F
                or 0x2B740 <= c <= 0x2B81F or 0x2B820 <= c <= 0x2CEAF or 0xF900 <= c <= 0xFAFF or 0x2F800 <= c <= 0x2FA1F)

    flags, decompositions, lowered, combining = {}, {}, {}, {}
    for c in CODE_POINTS:
        s, category, flag = chr(c), unicodedata.category(chr(c)), 0
        if s in " \t\n\r" or category == "Zs":
            flag |= SPACE
        elif c in (0, 0xFFFD) or category[0] == "C":
            flag |= REMOVED
        flag |= WHITESPACE if s.isspace() else 0
        flag |= CJK if spaced(c) else 0
        flag |= MARK if category == "Mn" else 0
        symbol = 33 <= c <= 47 or 58 <= c <= 64 or 91 <= c <= 96 or 123 <= c <= 126
        flag |= PUNCTUATION if symbol or category[0] == "P" else 0
        # What decides between the two small sigmas: cased and not ignorable, or ignorable.
        if f"{s}\u03a3".lower().endswith("\u03c2"):
            flag |= CASED
        elif f"A{s}\u03a3".lower().endswith("\u03c2"):
            flag |= IGNORABLE
        decomposed = unicodedata.normalize("NFD", s)
        if decomposed != s:
            decompositions[c] = decomposed
        if s.lower() != s:
            lowered[c] = s.lower()
        if unicodedata.combining(s):
            combining[c] = unicodedata.combining(s)
        flags[c] = flag
    return flags, decompositions, lowered, combining


def ranges(values):
    """Runs of code points with the same value other than zero: (first, last, value)."""
    result = []
    for c in sorted(values):
        value = values[c]
        if not value:
            continue
        if result and result[-1][1] == c - 1 and result[-1][2] == value:
            result[-1][1] = c
        else:
            result.append([c, c, value])
    return result


def merged(huggingface, google):
    """(code point, value) -> the mask of who says so."""
    masks = {}
    for mask, values in ((HUGGINGFACE, huggingface), (GOOGLE, google)):
        for c, value in values.items():
            masks[c, value] = masks.get((c, value), 0) | mask
    return sorted(masks.items())


def main():
    huggingface, google = observe_huggingface(), observe_google()
    for c in HANGUL:
        for decompositions in (huggingface[1], google[1]):
            assert decompositions.pop(c) == unicodedata.normalize("NFD", chr(c))
    out = ["// Made by scripts/generate-unicode-tables.py; see there what the rows mean. Do not edit."]

    def table(declaration, rows):
        out.append(f"constexpr {declaration}[] = {{")
        line = ""
        for row in rows:
            cell = f"{{{','.join(str(value) for value in row)}}},"
            if len(line) + len(cell) > 110:
                out.append(line)
                line = ""
            line += cell
        out.extend([line, "};"])

    table("FlagRange kHuggingFaceFlags", ranges(huggingface[0]))
    table("FlagRange kGoogleFlags", ranges(google[0]))
    table("CombiningRange kHuggingFaceCombining", ranges(huggingface[3]))
    table("CombiningRange kGoogleCombining", ranges(google[3]))
    for declaration, index, width in (("Decomposition kDecompositions", 1, 4), ("Lowercase kLowercase", 2, 3)):
        rows = []
        for (c, mapped), mask in merged(huggingface[index], google[index]):
            assert len(mapped) <= width
            rows.append([mask, c, len(mapped), "{" + ",".join(str(ord(m)) for m in mapped) + "}"])
        table(declaration, rows)
    path = pathlib.Path(__file__).resolve().parent.parent / "native" / "text" / "unicode_tables.inc"
    path.write_text("\n".join(out) + "\n", encoding="ascii")


main()
