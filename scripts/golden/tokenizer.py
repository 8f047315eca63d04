"""`tokenizer/` and `tokenizer_json/`: a small SentencePiece model for 18 languages, and its ids for unusual texts."""

import io
import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers import XLMRobertaTokenizer, XLMRobertaTokenizerFast

from common import PROMPT_TOKENS
from tokenizer_cases import LANGUAGES, cases

PIECES = 3000


def corpus(cldr: Path) -> list[str]:
    """One line per emoji and language: its name and its keywords."""
    lines = []
    for language in LANGUAGES:
        path = cldr / "annotations" / language / "annotations.json"
        entries = json.loads(path.read_text(encoding="utf-8"))["annotations"]["annotations"]
        for _, entry in sorted(entries.items()):
            lines.extend(entry.get("tts", []))
            lines.append(", ".join(entry.get("default", [])))
    return [line for line in lines if line]


def train(cldr: Path, path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(cldr)),
        # In memory, because the model records the path that it is written to.
        model_writer=model,
        model_type="unigram",
        vocab_size=PIECES,
        # Low enough that rare characters (mostly Han) stay unknown, as some are to XLM-R.
        character_coverage=0.993,
        normalization_rule_name="nmt_nfkc",
        num_threads=1,
        minloglevel=1,
    )
    path.write_bytes(model.getvalue())


def make(output: Path, cldr: Path) -> None:
    folder = output / "tokenizer"
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "sentencepiece.bpe.model"
        train(cldr, model)
        XLMRobertaTokenizer(str(model), model_max_length=512).save_pretrained(folder)

    slow = XLMRobertaTokenizer.from_pretrained(folder)
    fast = XLMRobertaTokenizerFast.from_pretrained(folder)
    fast_folder = output / "tokenizer_json"
    fast_folder.mkdir(parents=True, exist_ok=True)
    fast.backend_tokenizer.save(str(fast_folder / "tokenizer.json"), pretty=False)

    listed, differing = [], 0
    for text in cases(cldr):
        padded = slow(text, padding="max_length", max_length=PROMPT_TOKENS, truncation=True)
        untruncated = slow(text).input_ids
        ids = padded.input_ids
        assert len(ids) == PROMPT_TOKENS and sum(padded.attention_mask) == min(len(untruncated), PROMPT_TOKENS)
        case = {"text": text, "input_ids": ids, "ids_untruncated": untruncated}
        fast_ids = fast(text).input_ids
        if fast_ids != untruncated:
            differing += 1
            case["fast_ids_untruncated"] = fast_ids
        listed.append(case)
    unknown = sum(3 in case["ids_untruncated"] for case in listed)
    print(f"  {len(listed)} texts, {unknown} with an unknown piece, {differing} where the fast tokenizer differs")
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in listed)
    (folder / "cases.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
