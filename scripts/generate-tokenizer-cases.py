"""Writes test/text/unicode-cases.jsonl: seeded random texts with the tokens that the two references give.

The first line holds the vocabulary and the settings, every other line a text. Settings:

  huggingface  Hugging Face's tokenizers 0.23.2 itself
  google       the steps of the original BERT and ELECTRA code, in Python with unicodedata 14

The vocabulary of a file is every character that its words hold, alone and with "##", so that an id tells a character.
Needs Python 3.11 and: pip install tokenizers==0.23.2
Run in the project's root: python3 scripts/generate-tokenizer-cases.py [texts a setting] [output file]
"""

import json
import pathlib
import random
import sys
import unicodedata

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SETTINGS = [
    {"unicode": unicode, "lowercase": lowercase, "stripAccents": strip}
    for unicode in ("huggingface", "google")
    for lowercase, strip in ((True, True), (False, False), (True, False))
] + [{"unicode": "huggingface", "lowercase": False, "stripAccents": True}]


def random_character(source):
    kind = source.random()
    if kind < 0.3:
        return chr(source.randrange(32, 127))
    if kind < 0.4:
        return source.choice(" \t\n\r\u00a0\u2003\u2028\u0085\x0b\u3000")
    if kind < 0.5:
        return chr(source.randrange(0x80, 0x530))
    if kind < 0.58:
        return source.choice("ΣσςΑα'’.·ʰ\u0345\u00ad:İIÅΫ")
    if kind < 0.68:
        combining = (0x302E, 0x302F, 0x334, 0x1D165, 0x1D16D, 0x16FF0, 0x345, 0x5B0, 0x64B, 0x1CF7)
        return chr(source.choice((source.randrange(0x300, 0x370), *combining)))
    if kind < 0.74:
        return chr(source.randrange(0xAC00, 0xD7A4))
    if kind < 0.8:
        return chr(source.choice((source.randrange(0x4E00, 0xA000), source.randrange(0x2B800, 0x2B940))))
    if kind < 0.92:
        return chr(source.choice((source.randrange(0x530, 0xD800), source.randrange(0xE000, 0x10000))))
    return chr(source.randrange(0x10000, 0x1FFFF))


def random_text(source):
    parts = []
    for _ in range(source.randrange(1, 8)):
        if source.random() < 0.15:
            parts.append(source.choice(["[MASK]", "[CLS]", "[mask]", "Naïve CAFÉ", "ΟΔΟΣ", "don't"]))
        parts.append("".join(random_character(source) for _ in range(source.randrange(1, 6))))
        if source.random() < 0.3:
            parts.append(" ")
    return "".join(parts)


def utf16_offsets(text):
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + len(character.encode("utf-16-le")) // 2)
    return offsets


def google_words(text, setting):
    """BasicTokenizer of google-research/electra: clean, space out Chinese, split, lower, strip, split punctuation."""
    cleaned = []
    for character in text:
        category = unicodedata.category(character)
        if character in " \t\n\r" or category == "Zs":
            cleaned.append(" ")
        elif character in "\0\ufffd" or category.startswith("C"):
            continue
        else:
            c = ord(character)
            chinese = (0x4E00 <= c <= 0x9FFF or 0x3400 <= c <= 0x4DBF or 0x20000 <= c <= 0x2A6DF or 0x2A700 <= c <= 0x2B73F
                       or 0x2B740 <= c <= 0x2B81F or 0x2B820 <= c <= 0x2CEAF or 0xF900 <= c <= 0xFAFF or 0x2F800 <= c <= 0x2FA1F)
            cleaned.append(f" {character} " if chinese else character)
    words = []
    for word in "".join(cleaned).split():
        if setting["lowercase"]:
            word = word.lower()
            if setting["stripAccents"]:
                word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
        start_new = True
        for character in word:
            symbol = ord(character) < 128 and not character.isalnum() and 32 < ord(character) < 127
            if symbol or unicodedata.category(character).startswith("P"):
                words.append(character)
                start_new = True
            else:
                if start_new:
                    words.append("")
                words[-1] += character
                start_new = False
    return words


def huggingface_tokenizer(setting, vocabulary):
    tokenizer = Tokenizer(WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=setting["stripAccents"], lowercase=setting["lowercase"]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    output = sys.argv[2] if len(sys.argv) > 2 else pathlib.Path(__file__).resolve().parent.parent / "test/text/unicode-cases.jsonl"
    source = random.Random(20)
    texts = [[random_text(source) for _ in range(count)] for _ in SETTINGS]
    characters = set()
    for setting, rows in zip(SETTINGS, texts):
        normalizer = huggingface_tokenizer(setting, {"[UNK]": 0}).normalizer
        for text in rows:
            if setting["unicode"] == "google":
                characters.update("".join(google_words(text, setting)))
            else:
                characters.update(normalizer.normalize_str(text))
    characters = sorted(c for c in characters if not c.isspace())
    tokens = SPECIAL + [prefix + c for c in characters for prefix in ("", "##")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    lines = [{"vocabulary": tokens, "settings": SETTINGS}]
    for index, (setting, rows) in enumerate(zip(SETTINGS, texts)):
        tokenizer = huggingface_tokenizer(setting, vocabulary)
        for text in rows:
            row = {"setting": index, "text": text}
            if setting["unicode"] == "google":
                row["ids"] = [
                    vocabulary[c if i == 0 else f"##{c}"] for word in google_words(text, setting) for i, c in enumerate(word)
                ]
            else:
                encoding, units = tokenizer.encode(text, add_special_tokens=False), utf16_offsets(text)
                row["ids"], row["words"] = encoding.ids, encoding.word_ids
                row["offsets"] = [units[end] for pair in encoding.offsets for end in pair]
            lines.append(row)
    # ASCII only: no editor or tool can change what the texts hold.
    pathlib.Path(output).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")


main()
