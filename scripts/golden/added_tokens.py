"""`added_tokens.json`: the ids of texts with tokens added to a vocabulary, for each family of tokenizers.

A case has the small files that accompany another part's vocabulary, texts, and their ids. As in the loader,
SentencePiece and `vocab.txt` use transformers' slow tokenizers, the others its fast ones.
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import BertTokenizer, CLIPTokenizerFast, XLMRobertaTokenizer, XLMRobertaTokenizerFast

#: Family: its class, the folder of its vocabulary, and the vocabulary's files.
FAMILIES = {
    "sentencepiece": (XLMRobertaTokenizer, "tokenizer", ["sentencepiece.bpe.model"]),
    "wordpiece": (BertTokenizer, "dual_encoders/chinese_clip", ["vocab.txt"]),
    "bpe": (CLIPTokenizerFast, "dual_encoders/clip", ["vocab.json", "merges.txt"]),
    "tokenizer_json": (XLMRobertaTokenizerFast, "tokenizer_json", ["tokenizer.json"]),
}


def token(content: str, **flags) -> dict:
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "special": False} | flags


def texts(special: list[str]) -> list[str]:
    first, last = special[0], special[-1]
    return [
        "a photo of <cat-toy> here", "<cat-toy>", " <cat-toy> ", "a<cat-toy>b", "一只<cat-toy>狗", "<Cat-Toy> and <CAT-TOY>",
        "<cat-toy><cat-toy>s <cat-toy>2", "<cat>", "a <cat> <cat-toy", "<cat-toy-2> <cat-toy-20>",
        "red  <left>  dog", "red  <right>  dog", "red\t<both>\n dog", "red\u3000<both>\u3000dog", "<left><right><both>", "x<left>", "<right>x",
        "<left> <left>", "<right> <right>", "\u00a0<left>\u00a0<right>\u00a0",
        "one <word> two", "one<word> two", "one <word>two", "<word>", "one,<word>,two", "(<word>)", "<word><word>", "<word> <word>", "一<word>二", "_<word>_",
        "<plain> <PLAIN>", "<Upper> <upper> <UPPER>", "<sp> <SP>", "ﬁ <ﬁ> <fi>", "two words here", "TWO WORDS", "two  words", "twowords",
        "caf\u00e9 cafe\u0301 CAF\u00c9", f"a {first} b {last} c", f"{first}<cat-toy>{last}", f"  {last}  <cat-toy>", f"<cat-toy> {last.lower()} {last.upper()}",
        "", " ", "no added token here", "İ <cat-toy> Σ",
    ]


def decoder(first: int) -> dict:
    """`added_tokens_decoder` with tokens of every flag, from the id `first` on."""
    tokens = [
        token("<cat-toy>", normalized=True), token("<cat>", normalized=True), token("<cat-toy-2>", normalized=False),
        token("<left>", lstrip=True, normalized=False), token("<right>", rstrip=True, normalized=False),
        token("<both>", lstrip=True, rstrip=True, normalized=True), token("<word>", single_word=True, normalized=False),
        token("<plain>", normalized=False), token("<Upper>", normalized=True), token("<sp>", normalized=False, special=True),
        token("<ﬁ>", normalized=True), token("two words", normalized=True), token("café", normalized=True),
    ]
    return {str(first + place): entry for place, entry in enumerate(tokens)}


def configurations(size: int, mask: str | None) -> dict[str, dict]:
    """The small files of each case, for a vocabulary of `size` ids."""
    cases = {
        "none": {},
        "added_tokens.json": {"added_tokens.json": {"<cat-toy>": size, "<cat>": size + 1, "<cat-toy-2>": size + 2, "two words": size + 3}},
        "every flag": {"tokenizer_config.json": {"added_tokens_decoder": decoder(size)}},
        "the config goes before added_tokens.json": {
            "tokenizer_config.json": {"added_tokens_decoder": {str(size): token("<cat>", normalized=True)}},
            "added_tokens.json": {"<cat-toy>": size},
        },
        "special in the map": {
            "added_tokens.json": {"<cat-toy>": size, "<sp>": size + 1, "<left>": size + 2},
            "special_tokens_map.json": {"additional_special_tokens": ["<sp>", {"content": "<left>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}]},
        },
        "special without an id": {
            "tokenizer_config.json": {"additional_special_tokens": ["<cat-toy>", {"__type": "AddedToken", **token("<both>", lstrip=True, rstrip=True, normalized=False)}]},
        },
    }
    if mask:
        cases["another mask"] = {"tokenizer_config.json": {"mask_token": {"__type": "AddedToken", **token(mask, rstrip=True, normalized=False)}}}
    return cases


def make(output: Path) -> None:
    cases = []
    for family, (kind, folder, files) in FAMILIES.items():
        def load(small: dict):
            with tempfile.TemporaryDirectory() as scratch:
                for file in files:
                    shutil.copy(output / folder / file, scratch)
                for name, content in small.items():
                    (Path(scratch) / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
                return kind.from_pretrained(scratch)

        plain = load({})
        special = sorted(plain.all_special_tokens)
        for name, small in configurations(len(plain), plain.mask_token).items():
            tokenizer = load(small)
            listed = {text: tokenizer(text, add_special_tokens=False).input_ids for text in texts(special)}
            cases.append({"family": family, "case": name, "files": small, "texts": listed})
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    (output / "added_tokens.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
