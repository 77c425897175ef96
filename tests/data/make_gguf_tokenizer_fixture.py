"""Writes gguf_tokenizer.json beside itself: what independent implementations make of nasty texts.

    pip install sentencepiece==0.2.3 tokenizers==0.23.3
    python make_gguf_tokenizer_fixture.py

- `sentencepiece`: a small model trained here the way Llama's was, and sentencepiece's own ids.
- `hugging_face`: the same model as a tokenizer.json like TinyLlama's, for texts in which special
  tokens occur literally (sentencepiece never matches those).
- `splits`: how each pre-tokeniser cuts, by the components of the models' tokenizer.json files
  (Python's tokenizers uses Oniguruma, the Rust crate is built with fancy-regex).
- `byte_level`: a small byte-level BPE with Llama 3's pattern, with and without `ignore_merges`.

Training text: written for this file, or in the public domain (Austen 1813, Carroll 1865,
Lincoln 1863, Heine 1827, Hugo 1862).
"""

import json
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer

TRAINING = """\
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.
However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered the rightful property of some one or other of their daughters.
"My dear Mr. Bennet," said his lady to him one day, "have you heard that Netherfield Park is let at last?"
Mr. Bennet replied that he had not. "But it is," returned she; "for Mrs. Long has just been here, and she told me all about it."
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what is the use of a book," thought Alice "without pictures or conversations?"
There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit say to itself, "Oh dear! Oh dear! I shall be late!"
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and dedicated to the proposition that all men are created equal.
Now we are engaged in a great civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure.
Ich weiß nicht, was soll es bedeuten, daß ich so traurig bin; ein Märchen aus alten Zeiten, das kommt mir nicht aus dem Sinn.
En 1815, M. Charles-François-Bienvenu Myriel était évêque de Digne. C'était un vieillard d'environ soixante-quinze ans; il occupait le siège de Digne depuis 1806.
The cache holds 30 layers of keys and values: 3 heads, 64 channels, 2048 tokens, 4.25 bits for each value, or 3.76 times less than half precision.
A window is a stretch of tokens; windows do not overlap, and the first half of a window is its prefix. In 2026 there were 365 days, 8760 hours and 525600 minutes.
def attend(query, keys, values):
    scores = query @ keys.T
    for head in range(heads):
        if masked[head]:
            scores[head] = float("-inf")
    return softmax(scores) @ values
 = Heading = 

 = = Smaller heading = = 

The 日本 word for book is 本 and the Greek letters α, β and γ stand for angles.
"""

TEXTS = [
    "",
    " ",
    "  ",
    "       ",
    "Hello world",
    " leading space",
    "trailing space ",
    "two  spaces   three    four     five",
    "\n",
    "\n\n\n",
    " \n \n\n \n = Robert Boulter = \n \n",
    "tab\tand\t\ttabs \t mixed",
    "windows line\r\nend\r\n\r\n",
    "2026 365 1234567890 3.14159 1,000,000 007",
    "It's the neighbour's; they've said 'DON'T' and I'LL",
    "the considered conversations in possession of a neighbourhood",
    "incomprehensibilities antidisestablishmentarianism",
    "ssssssssssss aaaaaaaa thethethethe ininininin",
    "Märchen évêque François weiß naïve Ångström œuvre",
    "e\u0301 composed differently, A\u030a",
    "日本語のテキスト 本 中文 한국어",
    "Ελληνικά αβγ Привет नमस्ते",
    "emoji 😀 👩\u200d👩\u200d👧 🇩🇪 flags",
    "▁",
    "▁▁ lone ▁ marks▁inside",
    "…!!! ??? --- *** @-@ <|pipe|> {braces}",
    "no\u00a0break\u2003em\u3000ideographic\u200bzero",
    "Hello'Ve world 1234\n\n  foo\tbar  …!!!",
    "    if x:\n        return y  # 4 and 8\n",
    "x\u0000y\u0007z\u007f\U0010ffff",
    "camelCase HTTPServer XMLHttp ǅ ßẞ ªº ²³ Ⅳ ½",
    "path/to/file // comment /* x */\n/\n",
]

SPECIAL_TEXTS = [
    "a <unk> of the <unk> , </s> end",
    "<s> start",
    "<unk>",
    "<unk><unk> <unk>",
    "not<s>spaced</s>",
    " <unk> = \n",
]


def sentencepiece_model():
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        text.write_text(TRAINING, encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(text),
            model_prefix=str(Path(folder, "model")),
            model_type="bpe",
            vocab_size=640,
            character_coverage=1.0,
            byte_fallback=True,
            split_digits=True,
            allow_whitespace_only_pieces=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=True,
            num_threads=1,
            minloglevel=2,
        )
        return sentencepiece.SentencePieceProcessor(model_file=str(Path(folder, "model.model")))


def token_type(model, i):
    if model.is_unknown(i):
        return 2
    if model.is_control(i):
        return 3
    if model.is_unused(i):
        return 5
    if model.is_byte(i):
        return 6
    return 1


def added_token(i, content, special=True):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=special)
    return dict(id=i, content=content, **flags)


def merges_by_score(pieces, scores):
    """Every way to cut every piece in two, the best-scored piece first."""
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece, score in zip(pieces, scores):
        if piece.startswith("<") and piece.endswith(">"):
            continue
        cuts = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        found = [(a, b) for a, b in cuts if a in vocab and b in vocab]
        found.sort(key=lambda cut: (vocab[cut[0]], vocab[cut[1]]))
        merges += [(score, cut) for cut in found]
    merges.sort(key=lambda merge: merge[0], reverse=True)
    return [list(cut) for _, cut in merges]


def hugging_face_twin(pieces, merges):
    """A tokenizer.json with the components of TinyLlama's."""
    vocab = {piece: i for i, piece in enumerate(pieces)}
    return Tokenizer.from_str(json.dumps({
        "version": "1.0",
        "added_tokens": [added_token(i, pieces[i]) for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "byte_fallback": True,
            "vocab": vocab, "merges": merges,
        },
    }))


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


DIGITS = {"type": "Digits", "individual_digits": True}
NFC = {"type": "NFC"}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK_CODER = [
    split("[\r\n]"),
    split(r"\s?\p{L}+"),
    split(r"\s?\p{P}+"),
    split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
    DIGITS,
    byte_level(False),
]
# Hexadecimal ranges: some of these letters do not survive Unicode normalisation of a source file.
DEEPSEEK_CASED = """
41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F 386
388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD
1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D
1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3
1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107 210A-2113 2115 2119-211D 2124 2126 2128
212A-212D 212F-2134 2139 213C-213F 2145-2149 214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE
2CF2-2CF3 A640-A66D A680-A69B A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17
FF21-FF3A FF41-FF5A 10400-1044F 104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2
118A0-118DF 1E900-1E943
"""


def ranges(listed):
    """The inside of a character class, as the characters themselves."""
    return "".join("-".join(chr(int(end, 16)) for end in r.split("-")) for r in listed.split())


DEEPSEEK_LLM = [
    split("[\r\n]"),
    split(r"\s?[" + ranges(DEEPSEEK_CASED) + "]+"),
    split(r"\s?[!-/:-~" + ranges("FF01-FF0F FF1A-FF5E 2018-201F 3000-3002") + "]+"),
    split(r"\s+$"),
    split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"),
    DIGITS,
    byte_level(False),
]
QWEN35 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SEED_CODER = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK_V3 = [
    split(r"\p{N}{1,3}"),
    split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"),
    split(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    byte_level(False),
]
FALCON = [
    {"type": "Punctuation", "behavior": "Contiguous"},
    byte_level(True),
    {"type": "Digits", "individual_digits": False},
    split("[0-9][0-9][0-9]"),
]
BLOOM = " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"
SUPERBPE = [split(r"\p{N}+"), split(r"(?=(\d{3})+(?!\d))"), byte_level(False)]
PIPELINES = {  # name: (normaliser, pre-tokenisers)
    "gpt-2": (None, [byte_level(True)]),
    "olmo": (NFC, [byte_level(True)]),
    "smollm": (None, [DIGITS, byte_level(True)]),
    "command-r": (NFC, [DIGITS, byte_level(True)]),
    "llama-bpe": (None, [split(LLAMA3), byte_level(False)]),
    "qwen2": (NFC, [split(QWEN2), byte_level(False)]),
    "tekken": (None, [split(TEKKEN), byte_level(False)]),
    "deepseek-coder": (None, DEEPSEEK_CODER),
    "deepseek-llm": (None, DEEPSEEK_LLM),
    "deepseek-v3": (None, DEEPSEEK_V3),
    "gpt-4o": (None, [split(GPT4O), byte_level(False)]),
    "qwen35": (NFC, [split(QWEN35), byte_level(False)]),
    "stablelm2": (None, [split(QWEN2), byte_level(False)]),
    "seed-coder": (None, [split(SEED_CODER), byte_level(False)]),
    "falcon": (None, FALCON),
    "bloom": (None, [split(BLOOM), byte_level(False)]),
    "superbpe": (None, SUPERBPE),
}


def pipeline(name, model, added=()):
    normalizer, steps = PIPELINES[name]
    return Tokenizer.from_str(json.dumps({
        "version": "1.0",
        "added_tokens": list(added),
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": None,
        "decoder": None,
        "model": model,
    }))


def bpe(vocab, merges, ignore_merges=False):
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False, "byte_fallback": False,
        "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges,
    }


def cut(tokenizer, text):
    """The stretches as text, each by its offsets; the normalised text is what they cover."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    return [text[a:b] for _, (a, b) in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def byte_alphabet():
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in visible]
    return {**{b: chr(b) for b in visible}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def byte_level_model():
    """BPE by the book on the words that Llama 3's pattern cuts."""
    alphabet = byte_alphabet()
    spell = lambda text: "".join(alphabet[b] for b in text.encode())
    empty = pipeline("llama-bpe", bpe({}, []))
    counts = {}
    for word in cut(empty, TRAINING):
        counts[tuple(spell(word))] = counts.get(tuple(spell(word)), 0) + 1
    tokens, merges = [alphabet[b] for b in range(256)], []
    while len(merges) < 160:
        pairs = {}
        for word, count in counts.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(list(best))
        tokens.append("".join(best))
        merged = {}
        for word, count in counts.items():
            out, i = [], 0
            while i < len(word):
                whole = word[i:i + 2] == best
                out.append("".join(best) if whole else word[i])
                i += 2 if whole else 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + count
        counts = merged
    # Tokens that no merge makes: reached by `ignore_merges` only.
    tokens += [spell(word) for word in (" Việt", "2026", "123", " …!!!", "camelCase")]
    assert len(set(tokens)) == len(tokens)
    specials = ["<|begin_of_text|>", "<|eot_id|>"]
    return tokens, merges, specials


def main():
    model = sentencepiece_model()
    pieces = [model.id_to_piece(i) for i in range(len(model))]
    scores = [model.get_score(i) for i in range(len(model))]
    types = [token_type(model, i) for i in range(len(model))]
    by_score = merges_by_score(pieces, scores)
    twin = hugging_face_twin(pieces, by_score)
    twin_ids = lambda text: twin.encode(text, add_special_tokens=False).ids
    for text in TEXTS:
        assert twin_ids(text) == model.encode(text), text

    tokens, merges, specials = byte_level_model()
    vocab = {token: i for i, token in enumerate(tokens + specials)}
    added = [added_token(vocab[token], token) for token in specials]
    texts = TEXTS + [" Việt Nam 2026 123456", "<|begin_of_text|>Việt<|eot_id|> \n"]
    ids = {}
    for ignore in (False, True):
        tokenizer = pipeline("llama-bpe", bpe(vocab, merges, ignore), added)
        ids[ignore] = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    fixture = {
        "texts": TEXTS,
        "sentencepiece": {
            "tokens": pieces, "scores": scores, "token_type": types,
            "merges": [" ".join(merge) for merge in by_score],
            "ids": [model.encode(text) for text in TEXTS],
        },
        "hugging_face": [[text, twin_ids(text)] for text in SPECIAL_TEXTS],
        "splits": {
            name: [cut(pipeline(name, bpe({}, [])), text) for text in TEXTS] for name in PIPELINES
        },
        "byte_level": {
            "tokens": tokens + specials, "merges": [" ".join(merge) for merge in merges],
            "token_type": [1] * len(tokens) + [3] * len(specials),
            "texts": texts, "ids": ids[False], "ids_ignoring_merges": ids[True],
        },
    }
    sections = (
        f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"
        for key, value in fixture.items()
    )
    target = Path(__file__).with_name("gguf_tokenizer.json")
    target.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
